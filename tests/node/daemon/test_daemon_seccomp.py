"""Seccomp as the process sees it: the default, profiles of the node and of artifacts, and the notifier."""

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.artifacts import make_artifact, push_artifact
from support.cri import pb
from support.daemon import Daemon, wait_for
from support.images import busybox_layer, make_image, push
from support.registry import Registry
from support.warm import passable, warm_daemon

pytestmark = pytest.mark.node

ALLOWED = ["seccomp-notifier-action.crio.io", "seccomp-profile.crio.io"]
handlers = pytest.mark.parametrize("handler", ["crun", "runc"])


def refusing(*names: str, action: str = "SCMP_ACT_ERRNO", code: int | None = None) -> bytes:
    """A profile that allows all but these."""
    rule: dict[str, Any] = {"names": list(names), "action": action}
    if code is not None:
        rule["errnoRet"] = code
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}).encode()


@pytest.fixture(scope="module")
def daemon(registry: Registry) -> Iterator[Daemon]:
    with passable() as place, warm_daemon(place, registry, settings=settings_of(place)) as running:
        (running.place / "privileged.json").write_bytes(refusing("mkdir", "mkdirat"))
        yield running


def settings_of(place: Path) -> dict[str, Any]:
    return {
        "crio.runtime.privileged_seccomp_profile": str(place / "privileged.json"),
        "crio.runtime.runtimes.crun.allowed_annotations": ALLOWED,
        "crio.runtime.runtimes.runc.allowed_annotations": ALLOWED,
        "crio.runtime.runtimes.strict.runtime_path": shutil.which("crun"),
        "crio.runtime.runtimes.strict.runtime_root": str(place / "run/strict"),
    }


def run(daemon: Daemon, image: str, handler: str, kind: int | None, *, ref: str = "", annotations: Any = None) -> str:
    """A container that sleeps, in a pod with these annotations, under a profile of this kind."""
    pod = daemon.run_pod(daemon.pod_config(annotations=annotations or {}), handler=handler)
    config = daemon.container_config(image, "sleep", "1000")
    if kind is not None:
        config.linux.security_context.seccomp.profile_type = kind
        config.linux.security_context.seccomp.localhost_ref = ref
    return daemon.run_container(pod, config)


def seccomp_mode(daemon: Daemon, container: str) -> str:
    found = re.search(r"^Seccomp:\t(\d)$", daemon.output(container, "cat", "/proc/self/status"), re.MULTILINE)
    assert found
    return found[1]


DEFAULT, UNCONFINED, LOCALHOST = 0, 1, 2


@handlers
@pytest.mark.parametrize(("kind", "mode"), [(None, "0"), (UNCONFINED, "0"), (DEFAULT, "2")])
def test_profile_is_in_force_in_the_container_and_in_its_execs(
    daemon: Daemon, image: str, handler: str, kind: int | None, mode: str
) -> None:
    container = run(daemon, image, handler, kind)
    assert seccomp_mode(daemon, container) == mode
    pid = daemon.info(container)["pid"]
    assert f"Seccomp:\t{mode}\n" in Path(f"/proc/{pid}/status").read_text()
    said = daemon.exec(container, "busybox", "unshare", "-U", "true")
    assert (said.exit_code == 0) == (mode == "0"), said


@handlers
def test_localhost_profile_refuses_what_it_says(daemon: Daemon, image: str, handler: str) -> None:
    profile = daemon.place / "profile.json"
    profile.write_bytes(refusing("chmod", "fchmod", "fchmodat", code=95))
    container = run(daemon, image, handler, LOCALHOST, ref=str(profile))
    said = daemon.exec(container, "busybox", "chmod", "777", "/tmp")
    assert said.exit_code == 1
    assert b"not supported" in said.stderr


def test_missing_and_broken_profiles_are_told_by_name(daemon: Daemon, image: str) -> None:
    broken = daemon.place / "broken.json"
    broken.write_text("{")
    for ref, words in ((str(daemon.place / "none.json"), "no such file or directory"), (str(broken), "broken.json")):
        with pytest.raises(grpc.RpcError) as error:
            run(daemon, image, "crun", LOCALHOST, ref=ref)
        assert words in str(error.value.details())


@handlers
def test_privileged_container_has_the_privileged_profile(daemon: Daemon, image: str, handler: str) -> None:
    pod = daemon.pod_config()
    pod.linux.security_context.privileged = True
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.security_context.privileged = True
    container = daemon.run_container(daemon.run_pod(pod, handler=handler), config)
    assert seccomp_mode(daemon, container) == "2"
    assert daemon.exec(container, "busybox", "mkdir", "/tmp/x").exit_code == 1
    assert daemon.exec(container, "busybox", "touch", "/tmp/x").exit_code == 0


# Profiles that are artifacts.


@pytest.fixture(scope="module")
def profiles(registry: Registry) -> dict[str, str]:
    """References of artifacts that refuse one thing each."""
    found = {}
    for name, calls in (
        ("mkdir", ("mkdir", "mkdirat")),
        ("chmod", ("chmod", "fchmod", "fchmodat")),
        ("link", ("symlink", "symlinkat")),
    ):
        artifact = make_artifact(
            {"profile.json": refusing(*calls)}, artifact_type="application/vnd.cncf.seccomp-profile.config.v1+json"
        )
        push_artifact(registry, f"profiles/{name}", "v1", artifact)
        found[name] = registry.reference(f"profiles/{name}", "v1")
    return found


def refused(daemon: Daemon, container: str) -> set[str]:
    """Which of three things the container may not do."""
    commands = {"mkdir": "mkdir /tmp/d", "chmod": "chmod 755 /tmp", "link": "ln -s x /tmp/l"}
    return {name for name, command in commands.items() if daemon.exec(container, "busybox", *command.split()).exit_code != 0}


@handlers
def test_artifact_of_the_container_goes_before_that_of_the_pod_and_of_the_image(
    daemon: Daemon, registry: Registry, profiles: dict[str, str], handler: str
) -> None:
    annotated = make_image(
        [busybox_layer()], config={"Env": [f"OF={handler}"]}, annotations={"seccomp-profile.crio.io": profiles["link"]}
    )
    push(registry, f"annotated-{handler}", "latest", annotated)
    image = registry.reference(f"annotated-{handler}")
    daemon.pull(image)
    of_pod, of_container = (
        {"seccomp-profile.crio.io/POD": profiles["chmod"]},
        {"seccomp-profile.crio.io/main": profiles["mkdir"]},
    )
    assert refused(daemon, run(daemon, image, handler, None)) == {"link"}
    assert refused(daemon, run(daemon, image, handler, None, annotations=of_pod)) == {"chmod"}
    assert refused(daemon, run(daemon, image, handler, UNCONFINED, annotations={**of_pod, **of_container})) == {"mkdir"}
    assert refused(daemon, run(daemon, image, handler, DEFAULT, annotations=of_container)) == set()
    assert refused(daemon, run(daemon, image, "strict", None, annotations=of_container)) == set()


def test_what_is_no_profile_fails_the_create_and_says_so(daemon: Daemon, registry: Registry, image: str) -> None:
    push_artifact(registry, "profiles/none", "v1", make_artifact({"x": b"not a profile"}))
    wrong = {
        registry.reference("profiles/none", "v1"): "profiles/none",
        registry.reference("profiles/missing", "v1"): "profiles/missing",
        image: "OCI artifact with a seccomp profile",
    }
    for ref, words in wrong.items():
        with pytest.raises(grpc.RpcError) as error:
            run(daemon, image, "crun", None, annotations={"seccomp-profile.crio.io/POD": ref})
        assert words in str(error.value.details())


# The notifier.


def blocked(daemon: Daemon, container: str) -> list[str]:
    return re.findall(rf"Seccomp blocked syscall '(\w+)' in container {container}", daemon.log())


@handlers
@pytest.mark.parametrize("key", ["seccomp-notifier-action.crio.io", "io.kubernetes.cri-o.seccompNotifierAction"])
def test_notifier_stops_a_container_that_used_forbidden_calls(daemon: Daemon, image: str, handler: str, key: str) -> None:
    container = run(daemon, image, handler, DEFAULT, annotations={key: "stop"})
    for _ in range(3):
        said = daemon.exec(container, "busybox", "swapoff", "/nothing")
        assert said.exit_code == 1
        assert b"not permitted" in said.stderr
    status = daemon.wait_state(container, pb.CONTAINER_EXITED)
    assert (status.reason, status.message) == ("seccomp killed", "Used forbidden syscalls: swapoff (3x)")
    assert blocked(daemon, container) == ["swapoff"] * 3


@handlers
def test_notifier_that_only_tells_answers_with_the_errno_of_the_profile(daemon: Daemon, image: str, handler: str) -> None:
    profile = daemon.place / "told.json"
    profile.write_bytes(refusing("chmod", "fchmod", "fchmodat", "fchmodat2", code=95))
    annotations = {"seccomp-notifier-action.crio.io": ""}
    container = run(daemon, image, handler, LOCALHOST, ref=str(profile), annotations=annotations)
    said = daemon.exec(container, "busybox", "chmod", "777", "/tmp")
    assert b"not supported" in said.stderr, said
    assert set(blocked(daemon, container)) <= {"chmod", "fchmodat"}
    assert blocked(daemon, container)
    assert daemon.status(container).state == pb.CONTAINER_RUNNING


def test_notifier_needs_the_handlers_leave(daemon: Daemon, image: str) -> None:
    container = run(daemon, image, "strict", DEFAULT, annotations={"seccomp-notifier-action.crio.io": "stop"})
    daemon.exec(container, "busybox", "swapoff", "/nothing")
    assert blocked(daemon, container) == []
    assert not (daemon.runroot / "seccomp" / container).exists()


@handlers
def test_daemon_that_dies_hangs_nobody_and_hears_of_later_execs(daemon: Daemon, image: str, handler: str) -> None:
    pod = daemon.run_pod(daemon.pod_config(annotations={"seccomp-notifier-action.crio.io": "tell"}), handler=handler)
    loop = "while sleep 0.05; do busybox swapoff /nothing; echo answered; done"
    config = daemon.container_config(image, "sh", "-c", loop)
    config.linux.security_context.seccomp.profile_type = DEFAULT
    container = daemon.run_container(pod, config)
    wait_for(lambda: len(blocked(daemon, container)) > 2)
    log = Path(daemon.status(container).log_path)
    daemon.stop(signal.SIGKILL)
    before = len(log.read_bytes())
    wait_for(lambda: len(log.read_bytes()) > before + 200)
    daemon.start()
    heard = len(blocked(daemon, container))
    assert daemon.exec(container, "busybox", "swapoff", "/nothing").exit_code == 1
    wait_for(lambda: len(blocked(daemon, container)) > heard)
    assert daemon.status(container).state == pb.CONTAINER_RUNNING


def test_flood_of_forbidden_calls_leaves_the_daemon_free(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod(daemon.pod_config(annotations={"seccomp-notifier-action.crio.io": "tell"}))
    config = daemon.container_config(image, "sh", "-c", "while :; do busybox swapoff /nothing 2>/dev/null; done")
    config.linux.security_context.seccomp.profile_type = DEFAULT
    container = daemon.run_container(pod, config)
    wait_for(lambda: len(blocked(daemon, container)) >= 100)
    other = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name="other"))
    assert daemon.output(other, "echo", "there") == "there\n"
    daemon.stop_container(container)
    assert len(blocked(daemon, container)) < 110


def test_socket_goes_with_the_container(daemon: Daemon, image: str) -> None:
    container = run(daemon, image, "crun", DEFAULT, annotations={"seccomp-notifier-action.crio.io": "stop"})
    assert (daemon.runroot / "seccomp" / container).is_socket()
    daemon.remove_container(container)
    assert not (daemon.runroot / "seccomp" / container).exists()
