"""From a request to the spec of one container: the table of contents.

Pure: the same request and host give the same bytes. Whatever differs from what was asked without being an error comes
back as a note beside the spec.
"""

from typing import Final

from criollo.errors import Invalid
from criollo.oci import runtime_spec
from criollo.security.seccomp import Filter
from criollo.specgen import mounts, paths
from criollo.specgen.annotations import annotations
from criollo.specgen.host import HostFacts
from criollo.specgen.linux import linux
from criollo.specgen.process import process
from criollo.specgen.request import Built, SpecRequest, is_mapped

PRECOMPILED: Final = "run.oci.seccomp_bpf_data"  # crun(1): a program in base64 that it takes instead of linux.seccomp


def build(request: SpecRequest, host: HostFacts) -> Built:
    """The spec of a container, and notes for its log.

    Raises:
        Invalid: a value that cannot be; the message names the field.
        Unsupported: the host, the runtime or this build lacks something that was asked for.
        WrongState: the pod lacks a namespace that the container is to join.
    Source: OCI runtime-spec, config.md and config-linux.md.
    """
    notes = _confinement_notes(request, host)
    first, process_notes = process(request, host)
    _check_user(request)
    mounted, rootfs_propagation = mounts.mounts(request, host)
    seccomp = _seccomp(request, first)
    spec = runtime_spec.Spec(
        oci_version=runtime_spec.OCI_VERSION,
        process=first,
        root=runtime_spec.Root(
            path=paths.check_absolute(request.rootfs, "rootfs"),
            readonly=request.config.security.readonly_rootfs or request.defaults.read_only,
        ),
        hostname=request.pod.hostname if request.pod.uts_ns else "",  # the host's own must not be set
        mounts=mounted,
        hooks=request.hooks,
        annotations={**annotations(request), **({PRECOMPILED: seccomp.program} if seccomp.program else {})},
        linux=linux(request, host, rootfs_propagation, seccomp=seccomp.document),
    )
    if request.edits is not None:
        from criollo.specgen.edits import apply  # few containers ask for CDI devices

        spec = apply(spec, request.edits, request)
    return Built(spec=spec, notes=tuple(dict.fromkeys([*notes, *process_notes, *mounts.notes(request, host)])))


def _seccomp(request: SpecRequest, first: runtime_spec.Process) -> Filter:
    """The filter for the capabilities that the container can ever have."""
    profile = request.confinement.seccomp
    if profile is None:
        return Filter(runtime_spec.NO_SECCOMP)
    bounding = first.capabilities.bounding if first.capabilities is not None else ()
    listener = request.confinement.seccomp_listener
    return profile.filter(bounding, precompiled=request.defaults.precompiles_seccomp, listener=listener)


def _check_user(request: SpecRequest) -> None:
    """Whether who is to run exists in the pod's user namespace: what runtimes say otherwise names no field."""
    user = request.user
    for field, mapped, wanted in (
        ("user", request.pod.uids, (user.uid,)),
        ("group", request.pod.gids, (user.gid, *user.groups)),
    ):
        for number in wanted:
            if not is_mapped(mapped, number):
                ranges = ", ".join(f"{one.container_id}-{one.container_id + one.length - 1}" for one in mapped)
                raise Invalid(field, number, f"an id that the pod's user namespace has ({ranges})")


def _confinement_notes(request: SpecRequest, host: HostFacts) -> list[str]:
    if request.privileged:
        return []
    notes = []
    if host.apparmor and not request.confinement.apparmor_profile:
        notes.append("the container has no AppArmor profile: the default one is not loaded, and nothing is there to load it")
    if request.config.security.selinux is not None and host.selinux and not request.confinement.process_label:
        notes.append("SELinux options are not applied: selinux is off in the configuration, or the pod is the host's")
    return notes
