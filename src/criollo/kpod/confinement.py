"""Profiles and labels of a manifest as the messages of the protocol: AppArmor, seccomp, SELinux. Pure."""

from typing import Final

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Invalid
from criollo.kpod.manifest import ContainerSecurity, PodSecurity, Profile, SELinux

_TYPES: Final = {
    "RuntimeDefault": pb.SecurityProfile.RuntimeDefault,
    "Unconfined": pb.SecurityProfile.Unconfined,
    "Localhost": pb.SecurityProfile.Localhost,
}


def confine(message: pb.LinuxContainerSecurityContext, pod: PodSecurity, own: ContainerSecurity, place: str) -> None:
    """Say how a container is confined: as it wants itself, else as its pod wants; what nobody says is left to the node.

    Raises:
        Invalid: a profile that cannot be; the message has its path.
    """
    apparmor, seccomp = own.app_armor_profile or pod.app_armor_profile, own.seccomp_profile or pod.seccomp_profile
    if apparmor is not None:
        message.apparmor.CopyFrom(_profile(apparmor, f"{place}.securityContext.appArmorProfile"))
    if seccomp is not None:
        message.seccomp.CopyFrom(_profile(seccomp, f"{place}.securityContext.seccompProfile"))
    label = own.se_linux_options or pod.se_linux_options
    if label is not None:
        message.selinux_options.CopyFrom(selinux(label))


def selinux(label: SELinux) -> pb.SELinuxOption:
    """The parts of a label."""
    return pb.SELinuxOption(user=label.user, role=label.role, type=label.type, level=label.level)


def _profile(profile: Profile, place: str) -> pb.SecurityProfile:
    if profile.type not in _TYPES:
        raise Invalid(f"{place}.type", profile.type, " or ".join(_TYPES))
    if (profile.type == "Localhost") != bool(profile.localhost_profile):
        raise Invalid(f"{place}.localhostProfile", profile.localhost_profile, "a name for type Localhost, and only for it")
    return pb.SecurityProfile(profile_type=_TYPES[profile.type], localhost_ref=profile.localhost_profile)
