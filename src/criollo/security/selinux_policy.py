"""What this node's SELinux policy says about containers, and whether there is one.

Source: selinux_config(5); the file `contexts/lxc_contexts` of the reference policy, and of containers-common.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from criollo.aio import threads
from criollo.errors import Invalid, Unsupported, explain
from criollo.linux import selinux
from criollo.linux.files import read_limited
from criollo.security.selinux import Contexts, Labeller, parse_contexts
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_CONFIG: Final = "etc/selinux/config"
_OF_CONTAINERS: Final = "usr/share/containers/selinux/contexts"  # goes before the policy's own, as with podman
_USUAL_TYPE: Final = "targeted"
_MAX_BYTES: Final = 1 << 20
USUAL_STORE: Final = "/var/lib/containers/storage"  # which policies for containers label so that it can be read
_NEEDED: Final = ("read", "open", "getattr", "execute", "map")
_UNLABELLED: Final = "system_u:object_r:unlabeled_t:s0"


async def open_labeller(
    taken: Callable[[], Iterable[str]], *, host_network_unconfined: bool, storage_driver: str, store: Path
) -> Labeller | None:
    """Labels for pods of this node; None, and a warning, where it has no SELinux. `taken` are labels in use.

    A warning, too, where containers could not run what is in `store`, the directory of the layers.

    Raises:
        Unsupported: the policy knows no containers, or the storage driver no labels.
        Invalid: what the policy's file says is no label.
    """
    contexts = await threads.files(find_contexts)
    if contexts is None:
        log.warning("containers are not labelled: selinux is on in the configuration, and the kernel has no SELinux policy")
        return None
    if storage_driver != "overlay":
        raise Unsupported(
            f"cannot label root filesystems with storage driver {storage_driver}: only overlay does SELinux; set "
            "storage_driver to overlay, or selinux = false"
        )
    await threads.files(tell_unreadable, contexts, store)
    return Labeller(contexts, taken=taken, host_network_unconfined=host_network_unconfined)


def find_contexts(root: Path = Path("/")) -> Contexts | None:
    """The labels that the node's policy has for containers; None where the kernel has no policy loaded.

    Raises:
        Unsupported: the policy knows no containers.
        Invalid: what it says is no label.
    """
    if not selinux.is_enabled():
        return None
    contexts = read_contexts(root)
    for label in (contexts.process, contexts.file):
        try:
            selinux.check(str(label), "lxc_contexts")
        except Invalid as error:
            raise _unknown(f"the loaded policy does not know {label}, which its own files name") from error
    return contexts


def tell_unreadable(contexts: Contexts, store: Path) -> None:
    """Warn where programs of containers would die at their start: below the root filesystem, which has their label, the kernel
    asks about files of the store, which have the store's (blocking)."""
    try:
        fd = os.open(store, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            label = selinux.label_of(fd)
        finally:
            os.close(fd)
        lacking = selinux.missing(str(contexts.process), label or _UNLABELLED, _NEEDED)
        is_enforcing = selinux.is_enforcing()
    except (OSError, ValueError) as error:
        log.warning("whether containers may read the store is not known: SELinux does not say", store=store, error=error)
        return
    if lacking:
        log.warning(
            "containers cannot run what is in the store: the SELinux policy does not let them",
            store=store,
            label=label or "none",
            process=contexts.process,
            lacking=lacking,
            enforcing=is_enforcing,
            remedy=f"semanage fcontext -a -e {USUAL_STORE} {store.parent}; restorecon -R {store.parent}",
        )


def read_contexts(root: Path) -> Contexts:
    """The labels for containers in the files below `root`. Raises as `find_contexts`."""
    places = (root / _OF_CONTAINERS, root / "etc/selinux" / policy_type(_text(root / _CONFIG)) / "contexts/lxc_contexts")
    for path in places:
        if found := _text(path):
            return parse_contexts(found, str(path))
    raise _unknown(f"{places[1]} is not there")


def policy_type(config: str) -> str:
    """The value of SELINUXTYPE; it is the name of a directory."""
    for line in config.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "SELINUXTYPE" and (found := value.strip()) and "/" not in found and found not in (".", ".."):
            return found
    return _USUAL_TYPE


def _unknown(why: str) -> Unsupported:
    return Unsupported(
        f"cannot label containers for SELinux: {why}; install a policy that knows containers (container-selinux), or set "
        "selinux = false"
    )


def _text(path: Path) -> str:
    with explain(f"read {path}"):
        try:
            return read_limited(path, _MAX_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
