"""How the processes of a container are confined beyond capabilities: the choice, for the builder of specs."""

from typing import Final, NamedTuple

from criollo.containers.context import Containers
from criollo.errors import Unsupported
from criollo.model.container import Container, ContainerConfig, ContainerSecurity, Mount
from criollo.model.pod import Pod, PodConfig, PodSecurity, ProfileType
from criollo.security.seccomp import Profile
from criollo.specgen.request import Confinement


class AskedOfSeccomp(NamedTuple):
    """What annotations ask for: a profile where the security context has none, and a listener's socket."""

    profile: Profile | None = None
    listener: str = ""


NOTHING_ASKED: Final = AskedOfSeccomp()


class SelinuxLabels(NamedTuple):
    """Labels of processes and of mounts, as the records have them; empty: none."""

    process: str = ""
    mount: str = ""


NO_LABELS: Final = SelinuxLabels()


async def open_confinement(
    containers: Containers, *, apparmor_profile: str, selinux: bool, host_network_unconfined: bool, storage_driver: str
) -> None:
    """AppArmor and SELinux of this node; what it has not is not imported.

    Raises:
        NotFound, ToolFailed, TimedOut: the default profile of AppArmor is not loaded, and cannot be.
        Unsupported, Invalid: the policy of SELinux knows no containers, or the storage driver no labels.
    """
    state = containers.state
    if containers.host.apparmor:
        from criollo.security.apparmor import open_apparmor

        containers.apparmor = await open_apparmor(apparmor_profile, record=containers.places.runroot / "apparmor")
    if selinux:
        from criollo.security.selinux_policy import open_labeller

        containers.selinux = await open_labeller(
            lambda: [each.mount_label for rows in (state.pods, state.containers) for each in rows if each.mount_label],
            host_network_unconfined=host_network_unconfined,
            storage_driver=storage_driver,
            store=containers.images.layers.directory,
        )


def confinement(
    containers: Containers,
    security: ContainerSecurity | PodSecurity,
    handler: str,
    *,
    seccomp: AskedOfSeccomp = NOTHING_ASKED,
    labels: SelinuxLabels = NO_LABELS,
) -> Confinement:
    """What applies to who asked for `security`. Reads a file where a profile of the node is asked for: not for the loop.

    Raises:
        NotFound, Invalid, Unsupported: the profile is not there, or cannot be used; the message has the field.
    """
    chosen = seccomp.profile or containers.seccomp.choose(
        security.seccomp, privileged=security.privileged, handler=handler or containers.handlers.default
    )
    return Confinement(
        seccomp=chosen,
        seccomp_listener=seccomp.listener,
        apparmor_profile=_apparmor_profile(containers, security),
        process_label=labels.process,
        mount_label=labels.mount,
    )


def seccomp_of(containers: Containers, container: Container, profile: Profile | None) -> AskedOfSeccomp:
    return AskedOfSeccomp(profile, str(containers.places.notifier(container.id)) if container.notifier else "")


async def listen(containers: Containers, container: Container) -> None:
    """Hear of the calls that a container's seccomp filter refuses; see `containers.notifier`."""
    from criollo.containers import notifier  # few containers have one

    await notifier.listen(containers, container)


async def ready(containers: Containers, security: ContainerSecurity | PodSecurity) -> None:
    """See to it that the kernel has our own profile where it is wanted: somebody may have unloaded it. And that a file of a
    seccomp profile can be read at all.

    Raises:
        ToolFailed, TimedOut: the profile cannot be loaded, or the file hangs.
        NotFound: there is no such file.
    """
    if file := containers.seccomp.file_of(security.seccomp, privileged=security.privileged):
        from criollo.containers.reachable import check_answers  # few ask for one

        await check_answers(containers, file, "seccomp profile")
    if containers.apparmor is not None and not security.privileged:
        await containers.apparmor.ready(security.apparmor)


def labels_of(record: Container | Pod) -> SelinuxLabels:
    return SelinuxLabels(record.process_label, record.mount_label)


def pod_labels(containers: Containers, config: PodConfig) -> SelinuxLabels:
    """The SELinux labels of a new pod; its row must be written before anybody else asks.

    Raises:
        Invalid: the policy has no such label.
        Exhausted: all levels are taken.
    """
    if containers.selinux is None:
        return NO_LABELS
    from criollo.containers import labels  # nodes with SELinux only

    return SelinuxLabels(*labels.of_pod(containers.selinux, config))


def container_labels(containers: Containers, config: ContainerConfig, pod: Pod) -> SelinuxLabels:
    """The SELinux labels of a new container. Raises as `pod_labels`."""
    if containers.selinux is None:
        return NO_LABELS
    from criollo.containers import labels

    return SelinuxLabels(*labels.of_container(containers.selinux, config, pod))


async def relabel(containers: Containers, container: Container, mount: Mount, source: str) -> None:
    """Give a volume the label of the container that mounts it, where the node has SELinux and the request asks for it.

    Raises:
        Denied: the node itself lives by the label of that place.
        TimedOut: it hangs.
        CriolloError: the kernel refused.
    """
    if mount.selinux_relabel and containers.selinux is not None:
        from criollo.containers import labels

        await labels.relabel(containers, container, mount, source)


def _apparmor_profile(containers: Containers, security: ContainerSecurity | PodSecurity) -> str:
    asked = security.apparmor
    if containers.apparmor is not None:
        return containers.apparmor.choose(asked, privileged=security.privileged)
    if asked is not None and asked.type is ProfileType.LOCALHOST and not security.privileged:
        raise Unsupported(
            f"cannot apply AppArmor profile {asked.localhost_ref} (apparmor.localhost_ref): this node has no AppArmor; "
            "run the pod on a node whose kernel has it switched on"
        )
    return ""
