"""What containers get beyond their requests, seen from within: CDI devices, hooks, devices and settings of the node."""

import json
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon, wait_for
from support.registry import Registry
from support.warm import passable, warm_daemon

from criollo.linux.procfs import kernel_version

pytestmark = pytest.mark.node

ALLOWED = ("link-logs.crio.io", "devices.crio.io", "umask.crio.io", "shm-size.crio.io", "cgroup2-mount-hierarchy-rw.crio.io")
handlers = pytest.mark.parametrize("handler", ["crun", "runc"])


@pytest.fixture(scope="module")
def daemon(registry: Registry) -> Iterator[Daemon]:
    """A daemon in a place that users of a pod may pass, whose settings name directories of the test."""
    with passable() as place, warm_daemon(place, registry, settings=settings_of(place)) as running:
        yield running


def settings_of(place: Path) -> dict[str, Any]:
    runtime = {
        "cdi_spec_dirs": [str(place / "cdi"), str(place / "cdi-run")],
        "hooks_dir": [str(place / "hooks"), str(place / "hooks-later")],
        "additional_devices": ["/dev/loop-control:/dev/added:w"],
        "allowed_devices": ["/dev/fuse", "/dev/full"],
        "timezone": "Asia/Kathmandu",
        "default_mounts_file": str(place / "mounts.conf"),
        "absent_mount_sources_to_reject": ["/no/such/source"],
    }
    settings: dict[str, Any] = {f"crio.runtime.{key}": value for key, value in runtime.items()}
    for name in ("crun", "runc"):
        settings[f"crio.runtime.runtimes.{name}.allowed_annotations"] = list(ALLOWED)
    return settings


@pytest.fixture(autouse=True)
def empty(daemon: Daemon) -> Iterator[None]:
    """Specs, hooks and default mounts are those of one test."""
    yield
    for name in ("cdi", "cdi-run", "hooks", "hooks-later"):
        for path in (daemon.place / name).glob("*"):
            path.unlink()
    (daemon.place / "mounts.conf").unlink(missing_ok=True)


def write_spec(daemon: Daemon, edits: dict[str, Any], *, where: str = "cdi", name: str = "v.json", **more: Any) -> None:
    """A spec of the device v.com/d=0."""
    directory = daemon.place / where
    directory.mkdir(exist_ok=True)
    document = {"cdiVersion": "0.7.0", "kind": "v.com/d", "devices": [{"name": "0", "containerEdits": edits}], **more}
    (directory / name).write_text(json.dumps(document))


def script(daemon: Daemon, name: str, text: str) -> Path:
    path = daemon.place / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def write_hook(daemon: Daemon, name: str, *, where: str = "hooks", **fields: Any) -> None:
    directory = daemon.place / where
    directory.mkdir(exist_ok=True)
    document = {"version": "1.0.0", "when": {"always": True}, "stages": ["createRuntime"], **fields}
    (directory / name).write_text(json.dumps(document))


def run(daemon: Daemon, image: str, *, handler: str = "", pod: Any = None, **fields: Any) -> str:
    config = daemon.container_config(image, "sleep", "1000")
    for key, value in fields.items():
        getattr(config, key).update(value) if isinstance(value, dict) else getattr(config, key).extend(value)
    return daemon.run_container(daemon.run_pod(pod, handler=handler), config)


def with_device(name: str = "v.com/d=0") -> dict[str, Any]:
    return {"CDI_devices": [pb.CDIDevice(name=name)]}


def opens(daemon: Daemon, container: str, path: str) -> str:
    """For what a process inside may open a device: out of r and w."""
    ways = {"r": f"test -c {path} && : < {path}", "w": f"test -c {path} && : > {path}"}
    return "".join(way for way, words in ways.items() if daemon.exec(container, "sh", "-c", words).exit_code == 0)


def refused(daemon: Daemon, image: str, **fields: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        run(daemon, image, **fields)
    return error.value.code(), str(error.value.details())


@handlers
def test_a_cdi_device_brings_all_that_its_spec_says(daemon: Daemon, image: str, handler: str) -> None:
    told = script(daemon, "told", f"cat > {daemon.place}/told.json; env > {daemon.place}/told.env")
    (daemon.place / "library").write_text("so")
    edits = {
        "env": ["GPU=on"],
        "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/fuse", "permissions": "r", "fileMode": 0o666, "gid": 44}],
        "mounts": [{"hostPath": str(daemon.place / "library"), "containerPath": "/opt/lib/library", "options": ["ro", "bind"]}],
        "hooks": [{"hookName": "createRuntime", "path": str(told)}],
        "additionalGids": [4444],
    }
    write_spec(daemon, edits, containerEdits={"env": ["VENDOR=v"]})
    container = run(daemon, image, handler=handler, **with_device())
    assert daemon.output(container, "sh", "-c", "echo $GPU $VENDOR").split() == ["on", "v"]
    assert opens(daemon, container, "/dev/gpu0") == "r"
    assert daemon.output(container, "stat", "-c", "%a %u %g", "/dev/gpu0").split() == ["666", "0", "44"]
    assert daemon.output(container, "cat", "/opt/lib/library") == "so"
    assert daemon.exec(container, "sh", "-c", "echo x > /opt/lib/library").exit_code != 0
    assert "4444" in daemon.output(container, "id", "-G").split()
    assert json.loads((daemon.place / "told.json").read_text())["id"] == container
    variables = {line.partition("=")[0] for line in (daemon.place / "told.env").read_text().splitlines()}
    assert variables <= {"PATH", "PWD", "SHLVL", "_", "OLDPWD"}


@pytest.mark.skipif(kernel_version() < (6, 3), reason="tmpfs, where the daemon's root is, has id-mapped mounts since Linux 6.3")
@handlers
def test_a_cdi_device_is_seen_in_a_user_namespace(daemon: Daemon, image: str, handler: str) -> None:
    write_spec(daemon, {"deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/zero", "permissions": "rw"}]})
    config = daemon.pod_config()
    mapping = pb.IDMapping(host_id=100000, container_id=0, length=65536)
    options = pb.UserNamespace(mode=pb.POD, uids=[mapping], gids=[mapping])
    config.linux.security_context.namespace_options.userns_options.CopyFrom(options)
    container_config = daemon.container_config(image, "sleep", "1000")
    container_config.CDI_devices.add(name="v.com/d=0")
    container_config.linux.security_context.namespace_options.userns_options.CopyFrom(options)
    container = daemon.run_container(daemon.run_pod(config, handler=handler), container_config)
    assert len(daemon.exec(container, "head", "-c", "7", "/dev/gpu0").stdout) == 7


def test_a_cdi_device_may_come_by_the_containers_annotation(daemon: Daemon, image: str) -> None:
    write_spec(daemon, {"env": ["GPU=on"]})
    container = run(daemon, image, annotations={"cdi.k8s.io/plugin": "v.com/d=0"}, **with_device())
    assert daemon.output(container, "sh", "-c", "echo $GPU") == "on\n"
    assert "Skipping duplicate annotated CDI device" in daemon.log()


def test_a_pod_gets_no_cdi_device_by_its_own_annotation(daemon: Daemon, image: str) -> None:
    write_spec(daemon, {"env": ["GPU=on"]})
    pod = daemon.pod_config(annotations={"cdi.k8s.io/plugin": "v.com/d=0"})
    container = run(daemon, image, pod=pod)
    assert daemon.output(container, "sh", "-c", "echo $GPU") == "\n"


def test_a_cdi_device_that_is_nowhere_is_named_until_its_spec_is_there(daemon: Daemon, image: str) -> None:
    (daemon.place / "cdi").mkdir(exist_ok=True)
    (daemon.place / "cdi" / "broken.yaml").write_text("kind: [")
    code, message = refused(daemon, image, **with_device())
    assert code is grpc.StatusCode.NOT_FOUND
    assert "v.com/d=0" in message
    assert "broken.yaml" in message
    write_spec(daemon, {"env": ["GPU=first"]}, where="cdi")
    assert daemon.output(run(daemon, image, **with_device()), "sh", "-c", "echo $GPU") == "first\n"
    write_spec(daemon, {"env": ["GPU=later"]}, where="cdi-run")
    assert daemon.output(run(daemon, image, **with_device()), "sh", "-c", "echo $GPU") == "later\n"
    assert daemon.log().count("CDI registry has errors") == 1


@handlers
def test_hooks_run_in_the_order_of_their_files_at_their_stages(daemon: Daemon, image: str, handler: str) -> None:
    said = daemon.place / f"said-{handler}"
    say = script(daemon, "say", f'cat > /dev/null; echo "$1" >> {said}')
    for name, stage in (
        ("30.json", "createRuntime"),
        ("20.json", "createRuntime"),
        ("50.json", "poststart"),
        ("60.json", "poststop"),
    ):
        write_hook(daemon, name, hook={"path": str(say), "args": ["say", name]}, stages=[stage])
    write_hook(daemon, "30.json", where="hooks-later", hook={"path": str(say), "args": ["say", "30-later"]})
    container = run(daemon, image, handler=handler)
    wait_for(lambda: "50.json" in said.read_text())
    daemon.stop_container(container)
    daemon.remove_container(container)
    assert said.read_text().split() == ["20.json", "30-later", "50.json", "60.json"]


def test_a_hook_is_for_those_that_its_conditions_mean(daemon: Daemon, image: str) -> None:
    said = daemon.place / "meant"
    say = script(daemon, "say", f"cat > /dev/null; echo x >> {said}")
    run(daemon, image)
    when = {"annotations": {"^go$": "^yes$"}, "commands": ["^sleep$"]}
    write_hook(daemon, "a.json", hook={"path": str(say)}, when=when)
    run(daemon, image)
    assert not said.exists()
    run(daemon, image, pod=daemon.pod_config(annotations={"go": "yes"}))
    assert said.read_text() == "x\n"


def test_a_hook_that_fails_or_is_missing_keeps_the_container_from_being(daemon: Daemon, image: str) -> None:
    fail = script(daemon, "fail", "cat > /dev/null; exit 9")
    write_hook(daemon, "a.json", hook={"path": str(fail)})
    _, message = refused(daemon, image)
    assert "hook" in message
    fail.unlink()
    code, message = refused(daemon, image)
    assert code is grpc.StatusCode.NOT_FOUND
    assert str(fail) in message
    assert "a.json" in message


@handlers
def test_a_hook_that_hangs_ends_by_its_own_timeout(daemon: Daemon, image: str, handler: str) -> None:
    hang = script(daemon, "hang", "exec sleep 1000")
    write_hook(daemon, "a.json", hook={"path": str(hang), "timeout": 1})
    _, message = refused(daemon, image, handler=handler)
    assert str(hang) in message or "hook" in message


def test_a_broken_hook_file_is_named_and_hurts_nobody(daemon: Daemon, image: str) -> None:
    write_hook(daemon, "typo.json", hook={"path": "/bin/true"}, stages=["prestrat"])
    run(daemon, image)
    assert "typo.json" in daemon.log()
    assert "prestrat" in daemon.log()


@handlers
def test_an_annotation_gives_allowed_devices_only(daemon: Daemon, image: str, handler: str) -> None:
    for key in ("devices.crio.io", "io.kubernetes.cri-o.Devices"):
        pod = daemon.pod_config(annotations={key: "/dev/fuse:/dev/f,/dev/full"})
        container = run(daemon, image, pod=pod, handler=handler)
        assert opens(daemon, container, "/dev/f") == "rw"
        assert "No space" in daemon.exec(container, "sh", "-c", "echo x > /dev/full").stderr.decode()
        daemon.remove_everything()
    code, message = refused(daemon, image, handler=handler, pod=daemon.pod_config(annotations={"devices.crio.io": "/dev/kmsg"}))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "/dev/kmsg" in message


def test_additional_devices_are_in_every_container(daemon: Daemon, image: str) -> None:
    container = run(daemon, image)
    assert opens(daemon, container, "/dev/added") == "w"
    assert opens(daemon, container, "/dev/fuse") == ""


@handlers
def test_the_nodes_settings_are_seen_inside(daemon: Daemon, image: str, handler: str) -> None:
    secrets = daemon.place / "secrets"
    secrets.mkdir(exist_ok=True)
    (secrets / "key").write_text("k")
    (secrets / "link").symlink_to("key")
    (daemon.place / "mounts.conf").write_text(f"{secrets}:/run/secrets\n")
    container = run(daemon, image, handler=handler)
    assert daemon.output(container, "cat", "/run/secrets/key", "/run/secrets/link") == "kk"
    assert daemon.exec(container, "sh", "-c", "echo x > /run/secrets/key").exit_code != 0
    assert b"TZif" in daemon.exec(container, "cat", "/etc/localtime").stdout
    assert daemon.output(container, "stat", "-c", "%s", "/run/.containerenv") == "0\n"
    (secrets / "link").unlink()
    (secrets / "key").unlink()


def test_a_container_may_bring_its_own_time_zone(daemon: Daemon, image: str) -> None:
    (daemon.place / "zone").write_text("mine")
    container = run(daemon, image, mounts=[pb.Mount(container_path="/etc/localtime", host_path=str(daemon.place / "zone"))])
    assert daemon.output(container, "cat", "/etc/localtime") == "mine"


@handlers
def test_annotations_set_umask_and_shm_size(daemon: Daemon, image: str, handler: str) -> None:
    pod = daemon.pod_config(annotations={"umask.crio.io": "0077", "shm-size.crio.io": "3Mi", "io.kubernetes.cri-o.umask": "0"})
    container = run(daemon, image, pod=pod, handler=handler)
    assert daemon.output(container, "sh", "-c", "grep Umask /proc/1/status || cat /proc/1/status").split()[:2] != []
    inside = daemon.output(container, "cat", "/proc/1/status", "/proc/mounts")
    assert "Umask:\t0077" in inside
    (shm,) = [line for line in inside.splitlines() if " /dev/shm " in line]
    assert "size=3072k" in shm


def test_what_is_not_allowed_changes_nothing(daemon: Daemon, image: str) -> None:
    pod = daemon.pod_config(annotations={"shm-size.crio.iox": "3Mi", "umask.crio.io/other": "0077"})
    inside = daemon.output(run(daemon, image, pod=pod), "cat", "/proc/1/status", "/proc/mounts")
    assert "Umask:\t0022" in inside
    assert "size=65536k" in next(line for line in inside.splitlines() if " /dev/shm " in line)


@handlers
def test_an_init_system_finds_filesystems_of_its_own(daemon: Daemon, image: str, handler: str) -> None:
    config = daemon.container_config(image, "/bin/systemd")
    (daemon.place / "init").write_text("#!/bin/sh\nexec sleep 1000\n")
    (daemon.place / "init").chmod(0o755)
    config.mounts.add(container_path="/bin/systemd", host_path=str(daemon.place / "init"))
    container = daemon.run_container(daemon.run_pod(handler=handler), config)
    places = {words[1]: words for words in map(str.split, daemon.output(container, "cat", "/proc/mounts").splitlines())}
    for path in ("/run", "/run/lock", "/tmp", "/var/log/journal"):
        assert places[path][2] == "tmpfs"
    assert "/run/.containerenv" in places
    assert daemon.status(container).stop_signal == pb.SIGNAL_SIGRTMINPLUS3
    assert daemon.output(container, "sh", "-c", "tr '\\0' '\\n' < /proc/1/environ").count("container=crio") == 1


@pytest.fixture
def empty_dir() -> Iterator[tuple[str, Path]]:
    """A uid, and the emptyDir "logs" that kubelet makes for the pod of it."""
    uid = str(uuid.uuid4())
    pod = Path("/var/lib/kubelet/pods") / uid
    made = [each for each in pod.parents if not each.exists()]
    volume = pod / "volumes" / "kubernetes.io~empty-dir" / "logs"
    volume.mkdir(parents=True)
    yield uid, volume
    subprocess.run(["umount", "-l", str(volume)], capture_output=True, check=False)  # of a test that failed
    shutil.rmtree(pod)
    for each in made:
        each.rmdir()


def test_a_pod_reads_its_logs_in_its_volume_until_it_ends(daemon: Daemon, image: str, empty_dir: tuple[str, Path]) -> None:
    uid, volume = empty_dir
    config = daemon.pod_config(annotations={"link-logs.crio.io": "logs"})
    config.metadata.uid = uid
    pod = daemon.run_pod(config)
    container_config = daemon.container_config(image, "sh", "-c", "echo said; exec sleep 1000")
    container_config.mounts.add(container_path="/logs", host_path=str(volume))
    container = daemon.run_container(pod, container_config)
    wait_for(lambda: "said" in daemon.exec(container, "cat", f"/logs/{container}.log").stdout.decode())
    assert daemon.exec(container, "sh", "-c", "rm -rf /logs/main").exit_code != 0
    daemon.restart(signal.SIGKILL)
    assert "said" in daemon.output(container, "cat", "/logs/main/0.log")
    daemon.remove_pod(pod)
    assert list(volume.iterdir()) == []
    assert [path.name for path in Path(config.log_directory).iterdir()] == ["main"]


def test_logs_are_not_shown_where_no_volume_is(daemon: Daemon, image: str) -> None:
    code, message = refused(daemon, image, pod=daemon.pod_config(annotations={"link-logs.crio.io": "logs"}))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "emptyDir" in message


def test_a_source_that_must_be_there_is_not_made(daemon: Daemon, image: str) -> None:
    code, message = refused(daemon, image, mounts=[pb.Mount(container_path="/x", host_path="/no/such/source")])
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "/no/such/source" in message
    assert not os.path.exists("/no")


@handlers
def test_a_mount_may_have_options_of_its_own(daemon: Daemon, image: str, handler: str) -> None:
    source = daemon.place / "exec"
    source.mkdir(exist_ok=True)
    mount = pb.Mount(container_path="/data", host_path=str(source), mount_options=["noexec", "nodev", "nosuid"])
    container = run(daemon, image, handler=handler, mounts=[mount])
    (line,) = [line for line in daemon.output(container, "cat", "/proc/mounts").splitlines() if " /data " in line]
    assert {"noexec", "nodev", "nosuid"} <= set(line.split()[3].split(","))
    source.rmdir()
