"""What Status and RuntimeConfig tell of the node that no row and no driver knows: a value the wiring makes."""

from collections.abc import Callable, Sequence

import msgspec


class HandlerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A runtime handler and what its containers may ask for. The default is listed again under the empty name."""

    name: str
    recursive_read_only_mounts: bool = False
    user_namespaces: bool = False


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`handlers` and `config_json` are asked for at each call, since a reload changes them.

    `config_json` is the `config` entry of a verbose Status: `{"sandboxImage": …, "crio": {…}}`.
    """

    version: str
    uses_systemd: bool
    handlers: Callable[[], Sequence[HandlerFacts]]
    config_json: Callable[[], str]
    supplemental_groups_policy: bool = True
    user_namespaces_host_network: bool = False
    mount_options: bool = True
