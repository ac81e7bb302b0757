"""What a spec gets on top of what was built: the effect of CDI devices, as values whose sources were looked at."""

from criollo.model.pod import Record
from criollo.oci import runtime_spec


class EditedNode(Record, frozen=True, kw_only=True):
    """A device node to make. `type` is c, b, u or p; without `uid` or `gid` it belongs to the container's user."""

    path: str
    host_path: str
    type: str
    major: int = 0
    minor: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    permissions: str = "rwm"


class Edits(Record, frozen=True, kw_only=True):
    """Edits in the order in which they apply; a later one wins over an earlier one at the same place.

    `env` are NAME=value; `net_devices` names of the host → names inside, `net_devices_of` the CDI devices that bring them.
    """

    env: tuple[str, ...] = ()
    nodes: tuple[EditedNode, ...] = ()
    mounts: tuple[runtime_spec.Mount, ...] = ()
    hooks: runtime_spec.Hooks = runtime_spec.Hooks()
    net_devices: dict[str, str] = {}
    net_devices_of: tuple[str, ...] = ()
    intel_rdt: runtime_spec.IntelRdt | None = None
    gids: tuple[int, ...] = ()
