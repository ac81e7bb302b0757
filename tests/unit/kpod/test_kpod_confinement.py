"""How a played container is confined: its own word goes before that of its pod."""

from typing import Any

import pytest

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Invalid
from criollo.kpod.manifest import read_pod, unsupported
from criollo.kpod.podspec import Origin, make_plan

ORIGIN = Origin(uid="u", made_by="play", log_dir="/logs", volumes_dir="/volumes")
LABEL = {"user": "u", "role": "r", "type": "t", "level": "s0:c1,c2"}


def document(pod: dict[str, Any], container: dict[str, Any]) -> dict[str, Any]:
    spec = {"securityContext": pod, "containers": [{"name": "c", "image": "x", "securityContext": container}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}


def planned(pod: dict[str, Any], container: dict[str, Any]) -> tuple[pb.PodSandboxConfig, pb.LinuxContainerSecurityContext]:
    plan = make_plan(read_pod(document(pod, container), "test"), ORIGIN)
    return plan.sandbox, plan.containers[0].config.linux.security_context


def test_what_the_pod_says_holds_for_its_containers() -> None:
    said = {
        "appArmorProfile": {"type": "Localhost", "localhostProfile": "mine"},
        "seccompProfile": {"type": "RuntimeDefault"},
        "seLinuxOptions": LABEL,
    }
    sandbox, security = planned(said, {})
    assert (security.apparmor.profile_type, security.apparmor.localhost_ref) == (pb.SecurityProfile.Localhost, "mine")
    assert security.HasField("seccomp")
    assert security.seccomp.profile_type == pb.SecurityProfile.RuntimeDefault
    assert security.selinux_options == pb.SELinuxOption(**LABEL)
    assert sandbox.linux.security_context.selinux_options == pb.SELinuxOption(**LABEL)
    assert unsupported(document(said, said)) == []


def test_what_the_container_says_goes_first() -> None:
    _, security = planned(
        {"appArmorProfile": {"type": "RuntimeDefault"}, "seLinuxOptions": LABEL},
        {"appArmorProfile": {"type": "Unconfined"}, "seLinuxOptions": {"level": "s0"}},
    )
    assert security.apparmor.profile_type == pb.SecurityProfile.Unconfined
    assert security.selinux_options == pb.SELinuxOption(level="s0")


def test_what_nobody_says_is_left_to_the_node() -> None:
    sandbox, security = planned({}, {})
    assert not any(security.HasField(name) for name in ("apparmor", "seccomp", "selinux_options"))
    assert not sandbox.linux.security_context.HasField("selinux_options")


@pytest.mark.parametrize(
    "profile", [{"type": "Strict"}, {"type": "Localhost"}, {"type": "Unconfined", "localhostProfile": "x"}, {"type": ""}]
)
def test_a_profile_that_cannot_be_is_named_with_its_place(profile: dict[str, str]) -> None:
    with pytest.raises(Invalid, match=r"containers\[0\]\.securityContext\.appArmorProfile"):
        planned({}, {"appArmorProfile": profile})
