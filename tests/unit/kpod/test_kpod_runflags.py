import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.kpod.manifest import Pod, check_names
from criollo.kpod.podspec import Origin, PodPlan, make_plan
from criollo.kpod.runflags import Order, name_of, parse_port, parse_user, run_pod

ORIGIN = Origin(uid="u", made_by="run", log_dir="/l", volumes_dir="/v")


def pod(**fields: object) -> Pod:
    return run_pod(Order(image="busybox", name="web", **fields), {"HOME": "/root"})  # type: ignore[arg-type]


def plan(**fields: object) -> PodPlan:
    return make_plan(pod(**fields), ORIGIN)


def test_the_command_replaces_the_images_own_and_keeps_its_entrypoint() -> None:
    config = plan(command=("sh", "-c", "echo $(A) $$")).containers[0].config
    assert (list(config.command), list(config.args)) == ([], ["sh", "-c", "echo $(A) $$"])


def test_variables_are_set_passed_on_or_absent() -> None:
    envs = plan(env=("A=1=2", "HOME", "NOT_HERE", "B=", "C=$(A)")).containers[0].config.envs
    assert [(each.key, each.value) for each in envs] == [("A", b"1=2"), ("HOME", b"/root"), ("B", b""), ("C", b"$(A)")]


def test_volumes_become_mounts_of_host_paths() -> None:
    found = plan(volumes=("/a:/b:ro,rslave", "./c:/d"))
    mounts = found.containers[0].config.mounts
    assert [(each.host_path, each.container_path, each.readonly) for each in mounts] == [
        ("/a", "/b", True),
        (os.path.abspath("c"), "/d", False),
    ]
    assert (mounts[0].propagation, [volume.type for volume in found.volumes]) == (1, ["", ""])


@pytest.mark.parametrize("text", ["/a", "/a:b", "a:/b", ":/b", "/a:/b:wr", "/a:/b:ro,x"])
def test_what_is_no_volume_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="--volume"):
        pod(volumes=(text,))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:80", ("", 8080, 80, "TCP")),
        ("127.0.0.1:53:5353/udp", ("127.0.0.1", 53, 5353, "UDP")),
        ("[::1]:1:2/sctp", ("::1", 1, 2, "SCTP")),
    ],
)
def test_ports_have_an_optional_address_and_protocol(text: str, expected: tuple[str, int, int, str]) -> None:
    port = parse_port(text)
    assert (port.host_ip, port.host_port, port.container_port, port.protocol) == expected


@given(st.text(alphabet="0123456789:/[].tcpud", max_size=24))
def test_any_text_is_a_port_or_refused(text: str) -> None:
    try:
        port = parse_port(text)
    except Invalid:
        return
    assert 1 <= port.host_port <= 65535
    assert 1 <= port.container_port <= 65535


@pytest.mark.parametrize(
    ("text", "expected"), [("", (None, None, "")), ("7", (7, None, "")), ("7:8", (7, 8, "")), ("www:8", (None, 8, "www"))]
)
def test_users_are_numbers_or_names(text: str, expected: tuple[int | None, int | None, str]) -> None:
    assert tuple(parse_user(text)) == expected


@pytest.mark.parametrize("text", ["-1", "-", "2147483648", "99999999999", "-1:7"])
def test_a_user_that_is_neither_is_refused_by_its_flag(text: str) -> None:
    with pytest.raises(Invalid, match=r"--user: .* a name, or a number from 0 to 2147483647"):
        parse_user(text)


def test_a_directory_to_start_in_is_absolute() -> None:
    with pytest.raises(Invalid, match="--workdir: got 'rel', expected an absolute path"):
        plan(workdir="rel")


@pytest.mark.parametrize("text", ["7:staff", ":8", "7:", "7:-1", "7:2147483648"])
def test_groups_are_numbers_after_a_user(text: str) -> None:
    with pytest.raises(Invalid, match="--user"):
        parse_user(text)


def test_limits_are_those_of_the_cgroup() -> None:
    resources = plan(memory="64m", cpus="0.5").containers[0].config.linux.resources
    assert (resources.memory_limit_in_bytes, resources.cpu_quota) == (64 << 20, 50_000)


def test_switches_reach_the_pod() -> None:
    found = plan(network="host", privileged=True, read_only=True, handler="runc", workdir="/w", user="5:6", pull="never")
    config = found.containers[0].config
    security = config.linux.security_context
    assert (found.handler, config.working_dir, found.containers[0].pull) == ("runc", "/w", "Never")
    assert (security.privileged, security.readonly_rootfs, security.namespace_options.network) == (True, True, 2)
    assert (security.run_as_user.value, security.run_as_group.value) == (5, 6)


def test_an_order_leaves_nothing_to_warn_of() -> None:
    assert plan(env=("A=1",), volumes=("/a:/b",), ports=("1:2",)).warnings == ()


@given(st.text(max_size=80))
def test_a_name_made_up_is_a_name(image: str) -> None:
    check_names(run_pod(Order(image=image, name=name_of(image, "abc123")), {}))


def test_a_name_made_up_tells_of_the_image() -> None:
    assert name_of("docker.io/library/busybox:1.36@sha256:00", "abc") == "busybox-abc"
