import asyncio
import errno
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kpod_fake import IMAGE_ID, FakeNode, Kpod, log_line

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Invalid, Unauthenticated, Unavailable, WrongState
from criollo.kpod import places
from criollo.kpod.podspec import MADE_BY_LABEL, pod_uid
from criollo.model.transfer import LayerState, TransferState

# Images ---------------------------------------------------------------------------------------------------------------


def test_pull_prints_the_id_alone_on_standard_output(kpod: Kpod, node: FakeNode) -> None:
    said = kpod("pull", "busybox")
    assert (said.status, said.out, said.err) == (0, f"{IMAGE_ID}\n", "")


def test_pull_passes_credentials_on(kpod: Kpod, node: FakeNode) -> None:
    kpod("pull", "--creds", "me:pass:word", "busybox")
    [request] = node.named("PullImage")
    assert (request.auth.username, request.auth.password) == ("me", "pass:word")


def test_pull_tells_each_layer_once_without_a_terminal(kpod: Kpod, node: FakeNode) -> None:
    layer = LayerState(digest="sha256:" + "1" * 64, size=2048, done=1024, stage="pulling")
    steps = [layer, msgspec.structs.replace(layer, done=2048, stage="here")]
    node.pull_steps = [TransferState(id="p1", reference="docker.io/library/busybox:latest", layers=[step]) for step in steps]
    said = kpod("pull", "busybox")
    assert said.err == "layer 111111111111 2.00 KiB\n"


def test_pull_draws_bars_on_a_terminal(kpod: Kpod, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    layer = LayerState(digest="sha256:" + "1" * 64, size=2048, done=1024, stage="pulling")
    node.pull_steps = [TransferState(id="p1", reference="docker.io/library/busybox:latest", layers=[layer])]
    assert kpod("pull", "busybox").status == 0
    frames = [frame for frame in terminal.getvalue().split("\x1b[J") if frame]
    assert "#" in frames[0]
    assert "1.00 KiB of 2.00 KiB" in frames[0]
    assert "2.00 KiB of 2.00 KiB" in frames[-1]
    assert all(frame.startswith("\x1b[1A") for frame in frames[1:])


def test_pull_says_why_it_failed_in_one_line(kpod: Kpod, node: FakeNode) -> None:
    node.failures["PullImage"] = Unauthenticated("registry x wants\nother credentials")
    said = kpod("pull", "busybox")
    assert (said.status, said.out, said.err) == (1, "", "kpod: registry x wants\\nother credentials\n")


def test_images_shows_a_row_per_name(kpod: Kpod, node: FakeNode) -> None:
    node.add_image("docker.io/library/busybox:1")
    said = kpod("images", "--digests")
    heads, row = said.out.splitlines()
    assert heads.split() == ["REPOSITORY", "TAG", "DIGEST", "IMAGE", "ID", "SIZE"]
    assert row.split() == ["docker.io/library/busybox", "1", f"sha256:{'c' * 64}", IMAGE_ID[:12], "2.00", "KiB"]


def test_images_json_is_stable(kpod: Kpod, node: FakeNode) -> None:
    node.add_image("a/b:1", uid=None, username="www")
    [image] = json.loads(kpod("images", "--json").out)
    assert image == {
        "id": IMAGE_ID,
        "names": ["a/b:1"],
        "digests": [f"a/b@sha256:{'c' * 64}"],
        "size_bytes": 2048,
        "user": "www",
        "pinned": False,
    }


def test_hostile_names_are_escaped(kpod: Kpod, node: FakeNode) -> None:
    node.add_image("evil:\x1b]0;owned\x07\u202e")
    node.add_pod("p\x1b[2J")
    for arguments in (["images"], ["images", "--json"], ["pods"], ["pods", "--json"]):
        out = kpod(*arguments).out
        assert all(c.isprintable() or c == "\n" for c in out)
        assert "\u202e" not in out


def test_rmi_removes_what_is_there_and_names_what_is_not(kpod: Kpod, node: FakeNode) -> None:
    node.add_image("a:1")
    said = kpod("rmi", "nothing", "a:1")
    assert (said.status, said.out) == (1, "a:1\n")
    assert said.err == "kpod: image nothing not found: kpod images lists them\n"
    assert node.images == {}


def test_load_names_the_file_by_its_whole_path(
    kpod: Kpod, node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a b.tar").touch()
    monkeypatch.chdir(tmp_path)
    said = kpod("load", "-i", "a b.tar", "--name", "x.y/z:1")
    assert (said.status, said.out) == (0, "x.y/z:1\n")
    assert node.http_requests[0].query == {"path": [str(tmp_path / "a b.tar")], "name": ["x.y/z:1"]}


def test_load_reads_standard_input_through_a_file_that_is_gone_afterwards(
    kpod: Kpod, node: FakeNode, tmp_path: Path, feed: Callable[[bytes], None]
) -> None:
    feed(b"archive")
    assert kpod("load").status == 0
    [path] = node.http_requests[0].query["path"]
    assert path.startswith(f"{tmp_path}/root/kpod/.load.")
    assert not Path(path).exists()


def test_load_of_a_missing_file_is_refused_before_the_daemon_is_asked(kpod: Kpod, node: FakeNode) -> None:
    said = kpod("load", "-i", "/nowhere/a.tar")
    assert (said.status, said.err) == (1, "kpod: archive /nowhere/a.tar not found\n")
    assert node.http_requests == []


def test_save_asks_for_all_images_at_once(kpod: Kpod, node: FakeNode) -> None:
    assert kpod("save", "-o", "/x/y.tar", "--format", "docker-archive", "a:1", "b:2").status == 0
    assert node.http_requests[0].query == {"path": ["/x/y.tar"], "format": ["docker-archive"], "image": ["a:1", "b:2"]}


def test_errors_over_http_are_told_in_the_servers_words(kpod: Kpod, node: FakeNode) -> None:
    node.failures["/images/save"] = Invalid("image", "a:1", "an image that is here")
    said = kpod("save", "-o", "/x/y.tar", "a:1")
    assert (said.status, said.err) == (1, "kpod: image: got 'a:1', expected an image that is here\n")


# Lists ----------------------------------------------------------------------------------------------------------------


def test_pods_shows_state_address_and_containers(kpod: Kpod, node: FakeNode) -> None:
    pod = node.add_pod("web", ready=False)
    node.add_container(pod, "a")
    _, row = kpod("pods").out.splitlines()
    assert row.split()[:6] == [pod[:12], "web", "default", "stopped", "1", "10.1.2.3"]


def test_ps_shows_only_what_runs_unless_asked(kpod: Kpod, node: FakeNode) -> None:
    pod = node.add_pod("web")
    node.add_container(pod, "runs")
    dead = node.add_container(pod, "dead", state=pb.CONTAINER_EXITED)
    node.exits[dead] = (137, "OOMKilled")
    assert "dead" not in kpod("ps").out
    assert "exited (137 OOMKilled)" in kpod("ps", "-a").out


def test_ps_json_has_the_exit_code_of_what_has_ended(kpod: Kpod, node: FakeNode) -> None:
    pod = node.add_pod("web")
    dead = node.add_container(pod, "dead", state=pb.CONTAINER_EXITED)
    node.exits[dead] = (3, "Error")
    [found] = json.loads(kpod("ps", "-a", "--json").out)
    assert (found["state"], found["exit_code"], found["pod"], found["pod_id"]) == ("exited", 3, "web", pod)


def test_inspect_gives_one_document_with_the_info_unfolded(kpod: Kpod, node: FakeNode) -> None:
    pod = node.add_pod("web")
    node.add_container(pod, "app")
    assert json.loads(kpod("inspect", "web").out)["info"] == {"pid": 7}
    document = json.loads(kpod("inspect", "app").out)
    assert (document["kind"], document["status"]["state"], document["info"]) == (
        "container",
        "CONTAINER_RUNNING",
        {"pid": 7, "x": "y"},
    )


def test_inspect_type_decides_between_a_pod_and_its_namesake(kpod: Kpod, node: FakeNode) -> None:
    pod = node.add_pod("web")
    node.add_container(pod, "web")
    assert json.loads(kpod("inspect", "web").out)["kind"] == "pod"
    assert json.loads(kpod("inspect", "-t", "container", "web").out)["kind"] == "container"


def test_inspect_finds_images_last(kpod: Kpod, node: FakeNode) -> None:
    node.add_image("a:1")
    assert json.loads(kpod("inspect", "a:1").out)["info"] == {"imageSpec": {}}
    assert kpod("inspect", "b:1").err == "kpod: pod or container or image b:1 not found\n"


def test_stats_computes_processors_from_two_samples(kpod: Kpod, node: FakeNode) -> None:
    pod = node.add_pod("web")
    node.add_container(pod, "app")
    _, row = kpod("stats").out.splitlines()
    assert row.split()[1:] == ["app", "web", "50.0", "%", "3.00", "MiB", "64.0", "MiB", "-", "4.00", "KiB"]


def test_stats_of_one_leaves_the_others_out(kpod: Kpod, node: FakeNode) -> None:
    pod = node.add_pod("web")
    node.add_container(pod, "app")
    node.add_container(pod, "sidecar")
    assert "sidecar" not in kpod("stats", "--no-stream", "app").out


# Logs and exec --------------------------------------------------------------------------------------------------------


def test_logs_keeps_the_streams_apart_and_joins_lines(kpod: Kpod, node: FakeNode, tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_bytes(log_line("be", tag="P") + log_line("oops", "stderr") + log_line("gin") + log_line("end"))
    node.add_container(node.add_pod("web"), "app", log=log)
    assert kpod("logs", "app") == (0, "begin\nend\n", "oops\n")
    assert kpod("logs", "--tail", "1", "app") == (0, "end\n", "")


def test_logs_timestamps_stand_once_per_line(kpod: Kpod, node: FakeNode, tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_bytes(log_line("be", tag="P") + log_line("gin"))
    node.add_container(node.add_pod("web"), "app", log=log)
    assert kpod("logs", "--timestamps", "app").out == "2026-11-21T10:00:00.000000001Z begin\n"


def test_logs_follow_ends_with_the_container(kpod: Kpod, node: FakeNode, tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_bytes(log_line("last"))
    container = node.add_container(node.add_pod("web"), "app", log=log, state=pb.CONTAINER_EXITED)
    assert kpod("logs", "-f", container[:12]) == (0, "last\n", "")


def test_exec_passes_output_and_status_through(kpod: Kpod, node: FakeNode) -> None:
    node.add_container(node.add_pod("web"), "app")
    assert kpod("exec", "app", "--", "sh", "-c", "x", "--help") == (5, "out\n", "err\n")
    [asked] = node.named("Exec")
    assert (list(asked.cmd), asked.stdin, asked.tty, asked.stderr) == (["sh", "-c", "x", "--help"], False, False, True)


# Stop and remove ------------------------------------------------------------------------------------------------------


def test_stop_of_a_pod_stops_its_containers_with_the_grace_first(kpod: Kpod, node: FakeNode) -> None:
    pod = node.add_pod("web")
    container = node.add_container(pod, "app")
    assert kpod("stop", "-t", "3", "web") == (0, "web\n", "")
    [stopped] = node.named("StopContainer")
    assert (stopped.container_id, stopped.timeout) == (container, 3)
    assert [name for name, _ in node.calls if name.startswith("Stop")] == ["StopContainer", "StopPodSandbox"]


def test_rm_refuses_what_runs_unless_forced(kpod: Kpod, node: FakeNode) -> None:
    pod = node.add_pod("web")
    container = node.add_container(pod, "app")
    said = kpod("rm", "web")
    assert said.status == 1
    assert said.err == f"kpod: container app ({container[:12]}) is running; this needs kpod stop before, or rm -f\n"
    assert kpod("rm", "-f", "web").status == 0
    assert node.pods == {}


def test_rm_removes_logs_and_volumes_of_pods_that_kpod_made_only(kpod: Kpod, node: FakeNode, tmp_path: Path) -> None:
    node.add_pod("mine", **{MADE_BY_LABEL: "run"})
    node.add_pod("other")
    for name in ("mine", "other"):
        (tmp_path / f"logs/default_{name}_uid-{name}").mkdir(parents=True)
        (tmp_path / f"root/kpod/volumes/uid-{name}/v").mkdir(parents=True)
    assert kpod("rm", "mine", "other").status == 0
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["default_other_uid-other"]
    assert [path.name for path in (tmp_path / "root/kpod/volumes").iterdir()] == ["uid-other"]


def test_a_grace_or_a_limit_beyond_any_clock_is_refused(kpod: Kpod, node: FakeNode) -> None:
    node.add_container(node.add_pod("web"), "app")
    for words in (["stop", "-t", str(1 << 31), "web"], ["exec", "--timeout", str(1 << 31), "web", "true"]):
        said = kpod(*words)
        assert (said.status, said.out) == (2, "")
        assert f"2147483648 is not in the range 0<=x<=2147483647. See 'kpod {words[0]} --help'." in said.err


def test_rm_of_one_container_leaves_its_pod(kpod: Kpod, node: FakeNode) -> None:
    pod = node.add_pod("web")
    node.add_container(pod, "dead", state=pb.CONTAINER_EXITED)
    assert kpod("rm", "web/dead").status == 0
    assert (list(node.pods), node.containers) == ([pod], {})


# Run ------------------------------------------------------------------------------------------------------------------


def speaking(output: bytes, code: int) -> Any:
    return lambda node, container_id: node.end(container_id, output, code)


def test_run_prints_the_output_and_exits_like_the_command(kpod: Kpod, node: FakeNode) -> None:
    node.program = speaking(log_line("hello") + log_line("oops", "stderr"), 3)
    assert kpod("run", "busybox", "sh", "-c", "x", "--rm") == (3, "hello\n", "oops\n")
    assert list(node.named("CreateContainer")[0].config.args) == ["sh", "-c", "x", "--rm"]


def test_run_pulls_only_what_is_missing(kpod: Kpod, node: FakeNode) -> None:
    node.add_image("busybox")
    assert kpod("run", "busybox").status == 0
    assert node.named("PullImage") == []
    assert kpod("run", "--pull", "always", "busybox").status == 0
    assert len(node.named("PullImage")) == 1


def test_run_without_pulling_names_the_missing_image(kpod: Kpod, node: FakeNode) -> None:
    said = kpod("run", "--pull", "never", "busybox")
    assert (said.status, said.err) == (1, "kpod: image busybox not found: pull it first\n")
    assert node.named("RunPodSandbox") == []


def test_run_creates_by_image_id(kpod: Kpod, node: FakeNode) -> None:
    kpod("run", "busybox")
    image = node.named("CreateContainer")[0].config.image
    assert (image.image, image.user_specified_image) == (IMAGE_ID, "busybox")


def test_run_rm_leaves_no_pod_and_no_log(kpod: Kpod, node: FakeNode, tmp_path: Path) -> None:
    assert kpod("run", "--rm", "busybox").status == 0
    assert node.pods == {}
    assert list((tmp_path / "logs").iterdir()) == []


def test_run_without_rm_leaves_a_stopped_pod(kpod: Kpod, node: FakeNode) -> None:
    assert kpod("run", "--name", "web", "busybox").status == 0
    [pod] = node.pods.values()
    assert (pod.metadata.name, pod.state) == ("web", pb.SANDBOX_NOTREADY)


def test_run_detached_prints_both_ids_and_leaves_it_running(kpod: Kpod, node: FakeNode) -> None:
    node.program = lambda node, container_id: None
    said = kpod("run", "-d", "busybox")
    assert said.out.split() == [*node.pods, *node.containers]
    assert [each.state for each in node.containers.values()] == [pb.CONTAINER_RUNNING]


def test_run_detached_with_rm_is_a_usage_error(kpod: Kpod, node: FakeNode) -> None:
    assert kpod("run", "-d", "--rm", "busybox").status == 2


def test_run_refuses_a_name_that_is_taken(kpod: Kpod, node: FakeNode) -> None:
    pod = node.add_pod("web")
    said = kpod("run", "--name", "web", "busybox")
    assert said.err == f"kpod: pod name web is taken by pod {pod[:12]}; remove that one first\n"


def test_run_without_a_network_is_refused_at_once_unless_it_needs_none(kpod: Kpod, node: FakeNode) -> None:
    node.network_trouble = "Network plugin returns error: no network"
    said = kpod("run", "busybox")
    assert said.status == 1
    assert "no network; configure a CNI network or use the host's" in said.err
    assert node.named("RunPodSandbox") == node.named("PullImage") == []
    assert kpod("run", "--network", "host", "busybox").status == 0


@pytest.mark.parametrize("verb", ["RunPodSandbox", "CreateContainer", "StartContainer"])
def test_run_that_fails_leaves_nothing(kpod: Kpod, node: FakeNode, tmp_path: Path, verb: str) -> None:
    node.failures[verb] = WrongState("x", "y", "broken", "luck")
    said = kpod("run", "busybox")
    assert (said.status, said.err) == (1, "kpod: x y is broken; this needs luck\n")
    assert node.pods == {}
    assert not (tmp_path / "logs").exists() or list((tmp_path / "logs").iterdir()) == []


@pytest.mark.parametrize("verb", ["RunPodSandbox", "PodSandboxStatus", "CreateContainer", "StartContainer"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_run_that_is_ended_before_the_container_runs_leaves_nothing(
    kpod: Kpod, node: FakeNode, verb: str, number: int, status: int
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it

    async def end() -> None:
        os.kill(os.getpid(), number)
        if verb == "StartContainer":
            await asyncio.Event().wait()  # its answer could be there first, and then the container runs

    node.before[verb] = end
    node.program = lambda node, container_id: None
    try:
        assert kpod("run", "--rm", "busybox").status == status
    finally:
        signal.signal(signal.SIGHUP, before)
    assert node.pods == {}


# Play -----------------------------------------------------------------------------------------------------------------

DUO = """
apiVersion: v1
kind: Service
---
apiVersion: v1
kind: Pod
metadata: {name: duo}
spec:
  initContainers:
  - {name: first, image: "a:1"}
  containers:
  - {name: app, image: "a:1", livenessProbe: {}, volumeMounts: [{name: scratch, mountPath: /s}]}
  volumes:
  - {name: scratch, emptyDir: {}}
"""


@pytest.fixture
def duo(tmp_path: Path) -> Path:
    path = tmp_path / "duo.yaml"
    path.write_text(DUO)
    return path


def run_app_only(node: FakeNode, container_id: str) -> None:
    if node.containers[container_id].metadata.name == "first":
        node.end(container_id, b"", 0)


def test_play_runs_init_containers_first_and_names_what_it_leaves_out(
    kpod: Kpod, node: FakeNode, duo: Path, tmp_path: Path
) -> None:
    node.program = run_app_only
    said = kpod("play", duo)
    assert (said.status, said.out.split()) == (0, list(node.pods))
    assert said.err.splitlines() == [
        f"kpod: warning: {duo}: v1 Service is left out: only v1 Pod is played",
        f"kpod: warning: {duo}: spec.containers[0].livenessProbe is not supported, and left out",
    ]
    assert [request.config.metadata.name for request in node.named("CreateContainer")] == ["first", "app"]
    assert (tmp_path / "root/kpod/volumes" / pod_uid("default", "duo") / "scratch").is_dir()


def test_play_that_cannot_have_its_volumes_leaves_none(kpod: Kpod, node: FakeNode, duo: Path, tmp_path: Path) -> None:
    duo.write_text(DUO + f"  - {{name: absent, hostPath: {{path: {tmp_path}/absent, type: Directory}}}}\n")
    said = kpod("play", duo)
    assert (said.status, said.err.splitlines()[-1].partition(":")[0]) == (1, "kpod")
    assert not (tmp_path / "root/kpod/volumes").exists()


def test_play_twice_says_that_it_runs(kpod: Kpod, node: FakeNode, duo: Path) -> None:
    node.program = run_app_only
    kpod("play", duo)
    said = kpod("play", duo)
    assert (said.status, said.out) == (0, f"pod default/duo is already running: {next(iter(node.pods))}\n")
    assert len(node.pods) == 1


class Winner:
    """Another kpod that plays DUO: `win` is the moment when its pod is made, with its logs and its volume."""

    def __init__(self, node: FakeNode, places: Path) -> None:
        self.node, uid = node, pod_uid("default", "duo")
        self.files = [places / "root/kpod/volumes" / uid / "scratch/kept", places / f"logs/default_duo_{uid}/app/0.log"]
        self.pod = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name="duo", namespace="default", uid=uid),
            annotations={"io.criollo.kpod.launch": "other"},
        )

    def win(self) -> None:
        self.node._add_pod(self.pod)
        for path in self.files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def has_all(self) -> bool:
        return [pod.annotations for pod in self.node.pods.values()] == [self.pod.annotations] and all(
            path.exists() for path in self.files
        )


@pytest.fixture
def winner(node: FakeNode, tmp_path: Path) -> Winner:
    return Winner(node, tmp_path)


def test_play_leaves_the_pod_alone_that_another_one_makes_at_the_same_moment(
    kpod: Kpod, node: FakeNode, duo: Path, winner: Winner
) -> None:
    node.before["RunPodSandbox"] = winner.win
    said = kpod("play", duo)
    [pod_id] = node.pods
    assert said.status == 1
    assert f"taken by pod {pod_id[:12]}, which another kpod makes right now" in said.err
    assert winner.has_all()
    assert node.named("CreateContainer") == node.named("RemovePodSandbox") == []


@pytest.mark.parametrize("verb", ["CreateContainer", "StartContainer"])
def test_a_play_that_is_ended_leaves_the_files_alone_of_who_gets_the_pod_next(
    kpod: Kpod, node: FakeNode, duo: Path, winner: Winner, verb: str
) -> None:
    async def end() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    def hand_over() -> None:  # the removal, and before anything else happens the other one's creation
        node.pods.clear()
        winner.win()

    node.before[verb] = end
    node.before["RemovePodSandbox"] = hand_over
    assert kpod("play", duo).status == 143
    assert winner.has_all()


def test_a_play_that_gets_no_pod_leaves_the_files_alone_of_who_gets_one(
    kpod: Kpod, node: FakeNode, duo: Path, winner: Winner
) -> None:
    def fail() -> None:
        node.before["ListContainers"] = winner.win  # after pods were listed: the loser saw none
        raise Unavailable("not now")

    node.before["RunPodSandbox"] = fail
    assert kpod("play", duo).status == 1
    node.before.pop("ListContainers", lambda: None)()  # one that looked not at all
    assert winner.has_all()


def test_a_play_that_gets_no_pod_leaves_no_logs(kpod: Kpod, node: FakeNode, duo: Path, tmp_path: Path) -> None:
    def fail() -> None:
        (tmp_path / "logs" / f"default_duo_{pod_uid('default', 'duo')}").mkdir(parents=True)
        raise Unavailable("not now")

    node.before["RunPodSandbox"] = fail
    assert kpod("play", duo).status == 1
    assert list((tmp_path / "logs").iterdir()) == []


def test_files_of_a_pod_that_cannot_be_removed_do_not_keep_the_pod(
    kpod: Kpod, node: FakeNode, duo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EPERM, "not yours", str(path))

    node.program = run_app_only
    kpod("play", duo)
    monkeypatch.setattr(places, "remove_tree", refuse)
    said = kpod("rm", "-f", "duo")
    assert (said.status, node.pods) == (1, {})
    assert "cannot remove the files of pod duo" in said.err


def test_play_down_removes_pod_logs_and_volumes_and_may_be_repeated(
    kpod: Kpod, node: FakeNode, duo: Path, tmp_path: Path
) -> None:
    node.program = run_app_only
    kpod("play", duo)
    assert kpod("play", "--down", duo).status == 0
    assert kpod("play", "--down", duo) == (0, "", "")
    assert node.pods == {}
    assert node.named("StopContainer")[0].timeout == 30
    assert list((tmp_path / "logs").iterdir()) == []
    assert list((tmp_path / "root/kpod").iterdir()) == []


def test_play_of_a_stopped_pod_says_the_remedy(kpod: Kpod, node: FakeNode, duo: Path) -> None:
    node.program = run_app_only
    kpod("play", duo)
    kpod("stop", "duo")
    assert "kpod play --down" in kpod("play", duo).err


def test_a_failing_init_container_shows_its_output_and_takes_the_pod_back(kpod: Kpod, node: FakeNode, duo: Path) -> None:
    node.program = lambda node, container_id: node.end(container_id, log_line("no such table"), 2, "Error")
    said = kpod("play", duo)
    assert (said.status, said.out) == (1, "no such table\n")
    assert said.err.splitlines()[-1] == "kpod: init container first ended with 2 (Error); its last output is above"
    assert node.pods == {}


def test_run_as_non_root_is_judged_by_the_image(kpod: Kpod, node: FakeNode, tmp_path: Path) -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "careful"},
        "spec": {"securityContext": {"runAsNonRoot": True}, "containers": [{"name": "app", "image": "a:1"}]},
    }
    path = tmp_path / "p.json"
    path.write_text(json.dumps(manifest))
    node.add_image("a:1", uid=0)
    said = kpod("play", path)
    assert said.err == "kpod: cannot run container app: runAsNonRoot is set and it would run as root; set runAsUser\n"
    node.images.clear()
    node.add_image("a:1", uid=1000)
    assert kpod("play", path).status == 0


# Errors ---------------------------------------------------------------------------------------------------------------


def test_unknown_names_say_where_to_look(kpod: Kpod, node: FakeNode) -> None:
    assert kpod("stop", "x").err == "kpod: pod or container x not found: kpod pods and kpod ps -a list them\n"
    assert kpod("logs", "x").err == "kpod: container x not found: kpod ps -a lists them\n"


def test_a_command_line_that_makes_no_sense_exits_2(kpod: Kpod, node: FakeNode) -> None:
    for arguments in (["pull"], ["nonsense"], ["logs", "--tail", "-1", "x"], ["run", "--network", "moon", "x"]):
        said = kpod(*arguments)
        assert (said.status, said.out) == (2, "")
        assert said.err.startswith("kpod: ")


def test_without_daemon_and_root_the_remedy_is_told(kpod: Kpod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    said = kpod("ps")
    assert said.status == 1
    assert said.err.endswith("and working without one needs root: use sudo\n")
