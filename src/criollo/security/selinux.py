"""Which SELinux labels a pod and its containers get: one for the processes, one for what they mount.

The policy names both types in its file `contexts/lxc_contexts`; the level of a pod, two categories that no other pod of the
node has, keeps pods apart. A request may give each part of the label itself; the container's own words count more than its
pod's.

    case                                                   processes        files
    host PID or IPC namespace                              -                -
    host network, with `hostnetwork_disable_selinux`       -                as ever   (containers)
    privileged                                             -                as ever   (containers)
    infra container of a VM handler                        the KVM type     as ever

`-` is no label: the runtime's own then holds. Pure, but for the random choice; the labels are kept in the records, which are
also how we know what is taken.

Source: the behaviour of CRI-O, docs/crio.conf.5.md and server/; lxc_contexts of the reference policy.
"""

import random
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from criollo.errors import Exhausted, Invalid
from criollo.linux import selinux
from criollo.linux.selinux import CATEGORIES, Label, canonical, check_part, parse_label
from criollo.model.container import ContainerConfig
from criollo.model.pod import NamespaceMode, Namespaces, Pod, PodConfig, SELinuxOptions

SUPER_PRIVILEGED: Final = "spc_t"

_RESERVED: Final = f"s0:c{CATEGORIES - 2},c{CATEGORIES - 1}"  # of the files of unconfined containers, in other tools
_TRIES: Final = 64


class Labels(NamedTuple):
    """Labels of processes and of mounts; empty: none."""

    process: str = ""
    mount: str = ""


NO_LABELS: Final = Labels()


class Contexts(NamedTuple):
    """What the policy's `lxc_contexts` says."""

    process: Label
    file: Label


class Labeller:
    """Labels of a node; `taken` tells the labels that are in the records."""

    def __init__(self, contexts: Contexts, *, taken: Callable[[], Iterable[str]], host_network_unconfined: bool = True) -> None:
        self._contexts, self._taken, self._host_network_unconfined = contexts, taken, host_network_unconfined
        self._random = random.SystemRandom()

    def of_pod(self, config: PodConfig) -> Labels:
        """The labels of a pod, with a level of its own unless it asks for one.

        Raises:
            Invalid: a part of the label cannot be.
            Exhausted: all levels are taken.
        """
        return self._choose(config.security.selinux, config.security.namespaces, SELinuxOptions())

    def of_container(self, config: ContainerConfig, pod: Pod) -> Labels:
        """The labels of a container: its pod's, but for what it asks for itself.

        Raises:
            Invalid, Exhausted: as `of_pod`.
        """
        security = config.security
        labels = self._choose(security.selinux, security.namespaces, _options_of(pod.process_label))
        has_host_network = NamespaceMode.NODE in (security.namespaces.network, pod.config.security.namespaces.network)
        is_open = security.privileged or (has_host_network and self._host_network_unconfined)
        return labels._replace(process="") if is_open else labels

    def _choose(self, options: SELinuxOptions | None, namespaces: Namespaces, above: SELinuxOptions) -> Labels:
        if NamespaceMode.NODE in (namespaces.pid, namespaces.ipc):
            return NO_LABELS
        own = merged(options, above)
        process, file = (_with(label, own) for label in (self._contexts.process, self._contexts.file))
        if own.type:
            process = process._replace(type=check_part(own.type, "selinux_options.type"))
        if own.role:
            process = process._replace(role=check_part(own.role, "selinux_options.role"))
        if self._contexts.process.level or own.level:
            level = canonical(own.level, "selinux_options.level") if own.level else self._unused()
            process, file = process._replace(level=level), file._replace(level=level)
        return Labels(str(process), str(file))

    def _unused(self) -> str:
        """Two random categories that nobody has; an explicit level may be shared, as kubelet asks for it."""
        levels = {_level_of(label) for label in self._taken()} | {_RESERVED}
        for _ in range(_TRIES):
            first, second = sorted(self._random.sample(range(CATEGORIES), 2))
            if (level := f"s0:c{first},c{second}") not in levels:
                return level
        pairs = (f"s0:c{first},c{second}" for second in range(CATEGORIES) for first in range(second))
        for level in pairs:
            if level not in levels:
                return level
        raise Exhausted("cannot label a pod: all pairs of SELinux categories are taken; remove pods")


def parse_contexts(text: str, name: str = "lxc_contexts") -> Contexts:
    """The file `lxc_contexts` of a policy: lines `name = "label"`.

    Raises:
        Invalid: `process` or `file` is not there, or no label.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.lstrip().startswith(("#", ";")):
            found[key.strip()] = value.strip().strip('"')
    for each in ("process", "file"):
        if not found.get(each):
            raise Invalid(name, "", f'a line {each} = "user:role:type:level"')
    return Contexts(parse_label(found["process"], f"{name}, process"), parse_label(found["file"], f"{name}, file"))


def merged(own: SELinuxOptions | None, above: SELinuxOptions) -> SELinuxOptions:
    """Each part from the container, else from its pod."""
    if own is None:
        return above
    return SELinuxOptions(
        user=own.user or above.user, role=own.role or above.role, type=own.type or above.type, level=own.level or above.level
    )


def skips_relabel(own: SELinuxOptions | None, pod: SELinuxOptions | None) -> bool:
    """A super-privileged container reads all labels, so its volumes keep theirs."""
    return merged(own, SELinuxOptions(type=pod.type) if pod is not None else SELinuxOptions()).type == SUPER_PRIVILEGED


def check_labels(labels: Labels) -> None:
    """Ask the kernel whether its policy has them. Reads a file of the kernel.

    Raises:
        Invalid: it has not.
    """
    for field, label in (("selinux_options", labels.process), ("selinux_options (files)", labels.mount)):
        if label:
            selinux.check(label, field)


def _with(label: Label, options: SELinuxOptions) -> Label:
    return label._replace(user=check_part(options.user, "selinux_options.user")) if options.user else label


def _options_of(label: str) -> SELinuxOptions:
    if not label:
        return SELinuxOptions()
    found = parse_label(label)
    return SELinuxOptions(user=found.user, role=found.role, type=found.type, level=found.level)


def _level_of(label: str) -> str:
    """The level of a label that was kept; of one that is damaged, the label itself, which is in nobody's way."""
    try:
        level = parse_label(label).level
        return canonical(level) if level else ""
    except Invalid:
        return label
