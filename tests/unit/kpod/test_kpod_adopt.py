"""kpod load --from-containerd: what the command line means, what is asked for, what is told."""

import json

import pytest
from kpod_fake import FakeNode, Kpod

from criollo.kpod.adopt import ROUTE, Wanted, read_wanted

DIGEST = "sha256:" + "d" * 64


def answer(node: FakeNode, document: object) -> None:
    node.http_answers[ROUTE] = json.dumps(document).encode()


@pytest.mark.parametrize(
    ("value", "words", "root", "names"),
    [
        ("", (), "", ()),
        ("", ("a", "b"), "", ("a", "b")),
        ("a", ("b",), "", ("a", "b")),
        ("/root", ("a",), "/root", ("a",)),
    ],
)
def test_the_value_of_the_option_is_a_root_or_the_first_name(
    value: str, words: tuple[str, ...], root: str, names: tuple[str, ...]
) -> None:
    assert read_wanted(value, words, namespaces=["n"], everything=True) == Wanted(root, ("n",), names, True)


def test_images_are_asked_for_by_name(node: FakeNode, kpod: Kpod) -> None:
    answer(node, {"images": [{"id": "ab" * 32, "names": ["x.y/z:1"]}, {"id": "cd" * 32, "names": []}], "failed": {}})
    said = kpod("load", "--from-containerd", "/ctd", "--namespace", "moby", "z", "b")
    assert (said.status, said.out) == (0, "x.y/z:1\n" + "cd" * 32 + "\n")
    [request] = node.http_requests
    assert request.method == "POST"
    assert request.query == {"root": ["/ctd"], "namespace": ["moby"], "image": ["z", "b"]}


def test_what_failed_is_told_and_fails_the_call(node: FakeNode, kpod: Kpod) -> None:
    answer(node, {"images": [{"id": "ab" * 32, "names": ["x.y/z:1"]}], "failed": {"b\x1b:1": "gone"}})
    said = kpod("load", "--from-containerd", "--all")
    assert (said.status, said.out) == (1, "x.y/z:1\n")
    assert said.err == "kpod: cannot load b\\x1b:1: gone\n"
    assert node.http_requests[0].query == {"all": ["1"]}


def test_nothing_to_take_over_is_an_error(node: FakeNode, kpod: Kpod) -> None:
    said = kpod("load", "--from-containerd", "--all")
    assert said.status == 1
    assert "it has none in its namespaces" in said.err


def test_the_list_tells_what_cannot_be_taken_over(node: FakeNode, kpod: Kpod) -> None:
    whole = {"namespace": "k8s.io", "digest": DIGEST, "names": ["x.y/z:1"], "missing": ""}
    cut = {"namespace": "default", "digest": DIGEST, "names": [], "missing": "layers are gone"}
    answer(node, {"images": [whole, cut]})
    said = kpod("load", "--from-containerd", "--list")
    assert said.status == 0
    assert [line.split(maxsplit=3)[0::3] for line in said.out.splitlines()[1:]] == [
        ["k8s.io", "whole"],
        ["default", "layers are gone"],
    ]
    assert json.loads(kpod("load", "--from-containerd", "--list", "--json").out) == [whole, cut]
    assert {request.method for request in node.http_requests} == {"GET"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from-containerd",), "Say which images, or --all"),
        (("--from-containerd", "x", "--all"), "not both"),
        (("--from-containerd", "-i", "file"), "-i and --name are for archives"),
        (("--list",), "go with --from-containerd"),
        (("x",), "go with --from-containerd"),
    ],
)
def test_command_lines_that_make_no_sense_are_refused(kpod: Kpod, arguments: tuple[str, ...], said: str) -> None:
    refused = kpod("load", *arguments)
    assert refused.status == 2
    assert said in refused.err
