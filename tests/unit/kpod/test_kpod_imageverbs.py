"""The verbs for images as a person types them: what the runtime is asked, and what is shown of its answer."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kpod_fake import IMAGE_ID, FakeNode, Kpod

from criollo.errors import NotFound
from criollo.kpod.credentials import Login
from criollo.kpod.push import Target, parse_target
from criollo.model.store import (
    ContainerUsage,
    DiskUsage,
    ImageUsage,
    LayerUsage,
    Pruned,
    PrunedImage,
    Step,
    Tree,
    TreeLayer,
)
from criollo.model.transfer import Event, LayerState, TransferState

EVIL = "\x1b]0;owned\x07\u202e"


def asked(node: FakeNode) -> tuple[str, dict[str, list[str]], Any]:
    [request] = node.http_requests
    return request.path, request.query, json.loads(request.body or b"null")


@pytest.mark.parametrize("verb", ["tag", "untag"])
def test_names_are_passed_on_and_the_full_ones_printed(kpod: Kpod, node: FakeNode, verb: str) -> None:
    node.http_answers[f"/images/{verb}"] = b'{"names":["docker.io/library/a:latest"]}'
    said = kpod(verb, "x", "a", "b")
    assert (said.status, said.out) == (0, "docker.io/library/a:latest\n")
    assert asked(node)[:2] == (f"/images/{verb}", {"image": ["x"], "name": ["a", "b"]})


def test_tag_without_a_name_makes_no_sense(kpod: Kpod, node: FakeNode) -> None:
    assert kpod("tag", "x").status == 2


def test_history_is_a_table_or_json(kpod: Kpod, node: FakeNode) -> None:
    steps = [Step(created_by="RUN " + "x" * 100, layer="a" * 32, size_bytes=2048), Step(created_by=f"ENV {EVIL}", empty=True)]
    node.http_answers["/images/history"] = msgspec.json.encode(steps)
    lines = kpod("history", "x").out.splitlines()
    assert lines[1].startswith("aaaaaaaaaaaa ")
    assert "…" in lines[1]
    assert "2.00 KiB" in lines[1]
    assert lines[2].startswith("<config>")
    assert "x" * 100 in kpod("history", "--no-trunc", "x").out
    assert json.loads(kpod("history", "--format", "json", "x").out)[0]["size_bytes"] == 2048
    for words in (("history", "x"), ("history", "--no-trunc", "x"), ("history", "--format", "json", "x")):
        assert all(letter.isprintable() or letter == "\n" for letter in kpod(*words).out)


def test_a_tree_shows_who_shares_a_layer(kpod: Kpod, node: FakeNode) -> None:
    layers = [
        TreeLayer(layer="a", diff_id="sha256:" + "1" * 64, size_bytes=3 << 20, shared_with=["example.com/b:1", EVIL]),
        TreeLayer(layer="b", diff_id="sha256:" + "2" * 64, created_by=EVIL),
    ]
    tree = Tree(id=IMAGE_ID, names=["x:1"], size_bytes=3 << 20, shared_bytes=3 << 20, layers=layers)
    node.http_answers["/images/tree"] = msgspec.json.encode(tree)
    out = kpod("tree", "x").out
    assert out.splitlines()[2].startswith("└─ 111111111111  3.00 MiB")
    assert "also in example.com/b:1" in out
    assert out.splitlines()[4].startswith("  └─ 222222222222")
    assert all(letter.isprintable() or letter == "\n" for letter in out)
    assert json.loads(kpod("tree", "--json", "x").out)["layers"][0]["inodes"] == 0


def test_usage_names_containers_and_what_nobody_needs(kpod: Kpod, node: FakeNode) -> None:
    container = node.add_container(node.add_pod("p"), "web")
    usage = DiskUsage(
        images=[ImageUsage(id=IMAGE_ID, names=["x:1"], size_bytes=2048, unique_bytes=2048, containers=1, pinned=True)],
        containers=[ContainerUsage(id=container, image_id=IMAGE_ID, writable_bytes=1024, inodes=2)],
        unused_layers=[LayerUsage(layer="c" * 32, size_bytes=4096, why="cut pull")],
        layers_bytes=6144,
    )
    node.http_answers["/images/usage"] = msgspec.json.encode(usage)
    out = kpod("du").out
    assert "x:1" in out
    assert any(line.split()[:2] == [container[:12], "web"] for line in out.splitlines())
    assert "cut pull" in out
    assert json.loads(kpod("du", "--json").out) == msgspec.to_builtins(usage)


def test_prune_tells_what_went_and_what_stays(kpod: Kpod, node: FakeNode) -> None:
    pruned = Pruned(
        images=[PrunedImage(id=IMAGE_ID, names=["x:1"])], freed_bytes=2048, freed_inodes=3, kept={"pause": "pinned"}
    )
    node.http_answers["/images/prune"] = msgspec.json.encode(pruned)
    said = kpod("prune", "-a")
    assert asked(node)[1] == {"all": ["1"], "dry_run": ["0"]}
    assert said.out == f"removed image  {IMAGE_ID[:12]}  x:1\nfreed 2.00 KiB, 3 files\n"
    assert said.err == "kpod: warning: pause stays: pinned\n"
    node.http_answers["/images/prune"] = msgspec.json.encode(msgspec.structs.replace(pruned, dry_run=True))
    assert kpod("prune", "-n").out.startswith("would remove image")
    assert node.http_requests[1].query == {"all": ["0"], "dry_run": ["1"]}


def test_rmi_of_all_leaves_the_pinned(kpod: Kpod, node: FakeNode) -> None:
    node.add_image("a:1", image_id="1" * 64)
    node.add_image("b:1", image_id="2" * 64)
    node.images["b:1"].pinned = True
    assert kpod("rmi", "-a").out == "1" * 64 + "\n"


def test_rmi_with_force_removes_the_containers_first(kpod: Kpod, node: FakeNode) -> None:
    node.add_image("a:1")
    node.add_container(node.add_pod("p"), "uses")
    assert kpod("rmi", "-f", "a:1").status == 0
    assert [name for name, _ in node.calls if name.startswith("Remove")] == ["RemoveContainer", "RemoveImage"]


def test_rmi_ignores_what_is_not_there_when_told_to(kpod: Kpod, node: FakeNode) -> None:
    assert kpod("rmi", "-i", "a:1") == (0, "", "")
    assert kpod("rmi").status == 2
    assert kpod("rmi", "-a", "x").status == 2


# Import ---------------------------------------------------------------------------------------------------------------


def test_import_passes_path_name_and_changes_on(kpod: Kpod, node: FakeNode, tmp_path: Path) -> None:
    (tmp_path / "t").touch()
    node.http_answers["/images/import"] = msgspec.json.encode({"images": [{"id": IMAGE_ID, "names": []}]})
    said = kpod("import", "-c", "CMD x", "-c", "ENV a=b", "-m", "why", "--platform", "linux/arm64", tmp_path / "t", "n:1")
    assert (said.status, said.out) == (0, f"{IMAGE_ID}\n")
    path, query, body = asked(node)
    assert (path, query) == ("/images/import", {"path": [str(tmp_path / "t")], "name": ["n:1"]})
    assert body == {"changes": ["CMD x", "ENV a=b"], "message": "why", "platform": "linux/arm64"}


def test_import_reads_standard_input_through_a_file(kpod: Kpod, node: FakeNode, feed: Callable[[bytes], None]) -> None:
    feed(b"tar")
    assert kpod("import", "-").status == 0
    [path] = node.http_requests[0].query["path"]
    assert not Path(path).exists()


def test_import_of_what_is_not_there_or_no_text_is_refused_here(kpod: Kpod, node: FakeNode, tmp_path: Path) -> None:
    (tmp_path / "t").touch()
    assert kpod("import", "/nowhere").status == 1
    assert kpod("import", "-c", "ENV a=\udcff", tmp_path / "t").status == 1
    assert node.http_requests == []


# Push -----------------------------------------------------------------------------------------------------------------


def pushed(*events: Event) -> bytes:
    return b"".join(msgspec.json.encode(event) + b"\n" for event in events)


DONE = Event(type="result", image=IMAGE_ID, digest="sha256:" + "d" * 64, note="1 of 1 layers were written anew")


def test_push_prints_the_digest_and_tells_what_became_of_it(kpod: Kpod, node: FakeNode, tmp_path: Path) -> None:
    layer = LayerState(digest="sha256:" + "1" * 64, size=2048, done=2048, stage="there")
    node.http_answers["/images/push"] = pushed(Event(type="begin", id="i"), Event(type="layer", place=0, layer=layer), DONE)
    said = kpod(
        "push", "--creds", "me:pass", "--format", "v2s2", "--digestfile", tmp_path / "d", "x:1", "docker://h.example/y:2"
    )
    assert (said.status, said.out) == (0, f"{DONE.digest}\n")
    assert said.err == "layer 111111111111 2.00 KiB\nkpod: warning: 1 of 1 layers were written anew\n"
    assert (tmp_path / "d").read_text() == DONE.digest
    assert asked(node) == (
        "/images/push",
        {"image": ["x:1"]},
        {"target": "h.example/y:2", "format": "docker", "compression": "gzip", "username": "me", "password": "pass"},
    )


def test_push_without_a_destination_goes_to_the_images_own_name(kpod: Kpod, node: FakeNode) -> None:
    node.http_answers["/images/push"] = pushed(DONE)
    kpod("push", "-q", "h.example/x:1")
    assert asked(node)[2]["target"] == "h.example/x:1"


@pytest.mark.parametrize("answer", [pushed(Event(type="error", error=f"no {EVIL}")), pushed(Event(type="begin")), b""])
def test_a_push_that_fails_has_status_1_and_one_line(kpod: Kpod, node: FakeNode, answer: bytes) -> None:
    node.http_answers["/images/push"] = answer
    said = kpod("push", "-q", "x:1")
    assert (said.status, said.out, said.err.count("\n")) == (1, "", 1)
    assert said.err.rstrip("\n").isprintable()


def test_a_refusal_before_the_push_is_told_in_the_servers_words(kpod: Kpod, node: FakeNode) -> None:
    node.failures["/images/push"] = NotFound("image", "x:1")
    assert kpod("push", "x:1").err == "kpod: image x:1 not found\n"


def test_a_push_to_a_file_is_a_save_with_a_name(
    kpod: Kpod, node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert kpod("push", "x:1", "oci:out:v1").status == 0
    expected = {"image": ["x:1"], "path": [f"{tmp_path}/out"], "format": ["oci-dir"], "name": ["v1"], "add": ["1"]}
    assert asked(node)[:2] == ("/images/save", expected)
    for flag in (("--digestfile", "d"), ("--format", "oci"), ("--compression-format", "gzip")):
        assert kpod("push", *flag, "x:1", "oci:out").status == 2


def test_destinations_are_read_as_podman_reads_them() -> None:
    assert parse_target("docker://h/x:1") == parse_target("h/x:1") == Target("h/x:1")
    assert parse_target("localhost:5000/x") == Target("localhost:5000/x")
    assert parse_target("oci-archive:/f:n:1") == Target("n:1", "oci-archive", "/f")
    assert parse_target("docker-archive:/f") == Target("", "docker-archive", "/f")


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Login("me", "secret"))


# Inspect --------------------------------------------------------------------------------------------------------------


def test_inspect_gives_documents_of_an_image(kpod: Kpod, node: FakeNode) -> None:
    node.http_answers["/images/manifest"] = b'{ "exact" : 1}'
    node.http_answers["/images/config"] = b'{ "c" : "\xe2\x80\xae"}'
    assert kpod("inspect", "--raw", "x").out == '{ "exact" : 1}'
    assert kpod("inspect", "--raw", "--config", "x").out == '{ "c" : "\u202e"}'
    assert kpod("inspect", "--config", "x").out == '{\n  "c": "\\u202e"\n}\n'


def test_options_for_registries_want_a_registry(kpod: Kpod, node: FakeNode) -> None:
    for flags in (("--no-tags",), ("--platform", "linux/arm64"), ("--creds", "a:b")):
        assert kpod("inspect", *flags, "x").status == 2
    assert kpod("inspect", "-t", "pod", "docker://x").status == 2
    for flag in ("--raw", "--config"):
        assert kpod("inspect", "-t", "container", flag, "x").status == 2


def test_pull_tells_of_retries(kpod: Kpod, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    layer = LayerState(digest="sha256:" + "1" * 64, size=2048, done=1, stage="pulling", retries=2, source="h/x")
    node.pull_steps = [TransferState(id="i", reference="docker.io/library/busybox:latest", stage="layers", layers=[layer])]
    assert kpod("pull", "busybox").status == 0
    assert "pulling, retry 2" in terminal.getvalue()
