import contextlib
import http.client
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from kpod_node import Kpod
from support.daemon import wait_for
from support.registry import free_port

pytestmark = pytest.mark.node

IN_ORDER = """
apiVersion: v1
kind: Pod
metadata: {name: duo, labels: {app: duo}}
spec:
  initContainers:
  - {name: first, image: IMAGE, imagePullPolicy: IfNotPresent,
     command: [sh, -c, "echo made > /scratch/f; id -u > /scratch/uid"],
     volumeMounts: [{name: scratch, mountPath: /scratch}], securityContext: {runAsUser: 1234}}
  containers:
  - {name: app, image: IMAGE, imagePullPolicy: IfNotPresent,
     env: [{name: ME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}],
     command: [sh, -c, "cat /scratch/f /scratch/uid; echo $(ME); hostname; exec sleep 1000"],
     volumeMounts: [{name: scratch, mountPath: /scratch, readOnly: true}]}
  - {name: side, image: IMAGE, imagePullPolicy: IfNotPresent, args: [sleep, "1000"],
     resources: {limits: {memory: 64Mi, cpu: 500m}}}
  terminationGracePeriodSeconds: 0
  volumes: [{name: scratch, emptyDir: {}}]
"""


def lines_of(process: "subprocess.Popen[str]") -> Any:
    assert process.stdout is not None
    return iter(process.stdout)


def found(kpod: Kpod, verb: str = "ps", *flags: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(kpod(verb, "--json", *flags).out)
    return listed


def test_a_command_runs_and_leaves_nothing(kpod: Kpod) -> None:
    said = kpod("run", "--rm", "--name", "once", kpod.image, "sh", "-c", "echo out; echo err >&2; hostname; exit 3")
    assert (said.status, said.out, said.err.splitlines()[-1]) == (3, "out\nonce\n", "err")


def test_images_travel_by_archive(kpod: Kpod, tmp_path: Path) -> None:
    assert kpod("pull", kpod.image).status == 0
    for form in ("oci-archive", "docker-archive", "oci-dir"):
        path = tmp_path / form
        assert kpod("save", "-o", path, "--format", form, kpod.image) == (0, "", "")
        assert kpod("rmi", kpod.image).status == 0
        assert found(kpod, "images") == []
        assert kpod("load", "-i", path).out == f"{kpod.image}\n"
        assert kpod("run", "--rm", "--pull", "never", kpod.image, "echo", form).out == f"{form}\n"
    archive = (tmp_path / "oci-archive").read_bytes()
    kpod("rmi", kpod.image)
    assert kpod("load", stdin=archive).out == f"{kpod.image}\n"


def test_flags_reach_the_process(kpod: Kpod, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("from the node")
    tmp_path.chmod(0o755)
    script = "cat /mnt/f; echo; touch /mnt/x 2>&1; touch /x 2>&1; id -u; id -g; pwd; echo $A; grep NoNewPrivs /proc/self/status"
    said = kpod(
        *("run", "--rm", "-v", f"{tmp_path}:/mnt:ro", "-e", "A=$b", "--user", "5:6", "--workdir", "/tmp", "--read-only"),
        *("--memory", "32m", "--cpus", "0.5", kpod.image, "sh", "-c", script),
    )
    assert said.out.splitlines() == [
        "from the node",
        "touch: /mnt/x: Read-only file system",
        "touch: /x: Read-only file system",
        *("5", "6", "/tmp", "$b", "NoNewPrivs:\t0"),
    ]


def test_proc_is_masked(kpod: Kpod) -> None:
    said = kpod("run", "--rm", kpod.image, "sh", "-c", "wc -c < /proc/keys; touch /proc/sys/kernel/hostname 2>&1")
    assert said.out.splitlines()[0] == "0"
    assert "Read-only file system" in said.out


def test_what_is_detached_lives_on_for_the_next_call(kpod: Kpod) -> None:
    said = kpod("run", "-d", "--name", "web", "-e", "A=b", kpod.image, "sh", "-c", "echo up; exec sleep 1000")
    pod_id, container_id = said.out.split()
    [container] = found(kpod)
    assert (container["id"], container["pod_id"], container["state"]) == (container_id, pod_id, "running")
    assert kpod("exec", "web", "--", "sh", "-c", "echo $A; echo oops >&2; exit 4") == (4, "b\n", "oops\n")
    assert kpod("logs", "web").out == "up\n"
    assert json.loads(kpod("inspect", "-t", "container", "web").out)["status"]["state"] == "CONTAINER_RUNNING"
    assert kpod("stats", "--no-stream", "web").out.splitlines()[1].split()[1:3] == ["web", "web"]
    assert kpod("rm", "web").status == 1
    assert kpod("stop", "-t", "0", "web").status == 0
    assert found(kpod) == []
    assert found(kpod, "ps", "-a")[0]["exit_code"] == 137
    assert kpod("rm", "web").status == 0


def test_a_pod_is_played_and_taken_down(kpod: Kpod, tmp_path: Path) -> None:
    path = tmp_path / "duo.yaml"
    path.write_text(IN_ORDER.replace("IMAGE", kpod.image))
    said = kpod("play", path)
    [pod] = found(kpod, "pods")
    assert (said.status, said.out, pod["name"], pod["labels"]["app"]) == (0, f"{pod['id']}\n", "duo", "duo")
    assert kpod("play", path).out == f"pod default/duo is already running: {pod['id']}\n"
    wait_for_output(kpod, "duo/app", "made\n1234\nduo\nduo\n")
    assert sorted(each["name"] for each in found(kpod)) == ["app", "side"]
    assert "64.0 MiB" in kpod("stats", "--no-stream", "duo/side").out
    assert kpod("play", "--down", path) == (0, f"{pod['id']}\n", "")
    assert kpod("play", "--down", path) == (0, "", "")


def test_two_plays_at_once_make_one_pod_that_stays(kpod: Kpod, tmp_path: Path) -> None:
    path = tmp_path / "duo.yaml"
    path.write_text(IN_ORDER.replace("IMAGE", kpod.image))
    for _ in range(3):
        with kpod.start("play", path) as first, kpod.start("play", path) as second:
            ended = [(process.communicate(timeout=60), process.returncode) for process in (first, second)]
        assert 0 in {status for _, status in ended}, ended
        [pod] = found(kpod, "pods")
        assert pod["state"] == "ready", ended
        assert sorted(each["name"] for each in found(kpod)) == ["app", "side"], ended
        assert kpod("play", "--down", path).out == f"{pod['id']}\n"


def test_a_run_that_is_ended_while_its_pod_is_made_leaves_none(kpod: Kpod) -> None:
    assert kpod("pull", "-q", kpod.image).status == 0
    pods = kpod.daemon.runroot / "pods"
    with kpod.start("run", "--rm", kpod.image, "sleep", "1000") as process:
        wait_for(lambda: list(pods.iterdir()))
        process.terminate()
        out, err = process.communicate(timeout=60)
        assert process.returncode in (143, 137), (out, err)  # 137: it ran already, and was stopped
    assert found(kpod, "pods") == []


def wait_for_output(kpod: Kpod, container: str, expected: str) -> None:
    """Follow until the lines are there; an interrupt ends it."""
    with kpod.start("logs", "-f", container) as process:
        seen = ""
        for line in lines_of(process):
            seen += line
            if len(seen) >= len(expected):
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert (seen, process.returncode) == (expected, 130)


def test_a_failing_init_container_takes_the_pod_back(kpod: Kpod, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    text = IN_ORDER.replace("IMAGE", kpod.image).replace("echo made", "echo no luck; exit 7; echo made")
    path.write_text(text)
    said = kpod("play", path)
    assert (said.status, said.out) == (1, "no luck\n")
    assert "init container first ended with 7 (Error)" in said.err


def test_an_interrupt_stops_the_container_in_the_foreground(kpod: Kpod) -> None:
    script = "trap 'echo bye; exit 9' TERM; echo up; while true; do sleep 0.1; done"
    with kpod.start("run", "--rm", kpod.image, "sh", "-c", script) as process:
        assert next(lines_of(process), "") == "up\n"
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=60)
        assert (process.returncode, rest) == (9, "bye\n"), err


def test_a_container_that_cannot_start_leaves_nothing(kpod: Kpod) -> None:
    said = kpod("run", kpod.image, "/no/such/program")
    assert said.status == 1
    assert "/no/such/program" in said.err
    assert len([line for line in said.err.splitlines() if line.startswith("kpod: ")]) == 1


def test_following_ends_with_the_container_and_has_all_of_it(kpod: Kpod) -> None:
    script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"
    said = kpod("run", "--rm", kpod.image, "sh", "-c", script)
    assert said.out.splitlines() == [f"line {n}" for n in range(2000)]


def test_a_published_port_is_served(kpod: Kpod, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("hello")
    port = free_port()
    flags = ("-d", "--name", "web", "-p", f"127.0.0.1:{port}:80", "-v", f"{tmp_path}:/www:ro")
    kpod("run", *flags, kpod.image, "httpd", "-f", "-p", "80", "-h", "/www")
    wait_for(lambda: page_at(port) == b"hello")
    assert kpod("rm", "-f", "web").status == 0
    assert page_at(port) == b""


def page_at(port: int) -> bytes:
    """What a web server has at its root; empty when nobody answers."""
    try:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as client:
            client.request("GET", "/")
            return client.getresponse().read()
    except (OSError, http.client.HTTPException):
        return b""
