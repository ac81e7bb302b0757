"""kpod images: which are chosen, and how they are shown."""

import json

import pytest
from kpod_fake import FakeNode, Kpod

from criollo.errors import Invalid
from criollo.kpod.imagelist import parse_filter

A, B = "1" * 64, "2" * 64


@pytest.fixture
def two(node: FakeNode) -> FakeNode:
    node.add_image("docker.io/library/busybox:1", image_id=A)
    node.add_image("quay.io/team/app:v2", image_id=B)
    node.images["dangling"] = type(node.images["quay.io/team/app:v2"])(id="3" * 64, size=5)
    node.http_answers["/images/config"] = json.dumps(
        {"created": "2026-01-02T03:04:05Z", "config": {"Labels": {"tier": "front"}}}
    ).encode()
    return node


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (("busybox",), [A]),
        (("quay.io/team/*",), [B]),
        (("app:v2",), [B]),
        (("222",), [B]),
        (("nobody",), []),
        (("-f", "reference=busybox", "-f", "reference=app"), [A, B]),
        (("-f", "dangling=true"), ["3" * 64]),
        (("-f", "dangling=false"), [A, B]),
        (("-f", "label=tier"), [A, B, "3" * 64]),
        (("-f", "label=tier=back"), []),
        (("-f", "label=tier=front", "busybox"), [A]),
        (("-f", "before=busybox:1"), []),
    ],
)
def test_filters_choose(kpod: Kpod, two: FakeNode, words: tuple[str, ...], ids: list[str]) -> None:
    if words[-1] == "before=busybox:1":
        words = ("-f", "before=docker.io/library/busybox:1")
    said = kpod("images", "-q", "--no-trunc", *words)
    assert (said.status, said.out.split()) == (0, ids), said.err


def test_a_template_has_a_line_for_each_name(kpod: Kpod, two: FakeNode) -> None:
    two.images["quay.io/team/app:v2"].repo_tags.append("quay.io/team/app:v3")
    said = kpod("images", "app", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{json .Labels}} {{.CreatedAt}}")
    assert said.out.splitlines()[1] == 'quay.io/team/app:v3 222222222222 {"tier": "front"} 2026-01-02T03:04:05+00:00'
    table = kpod("images", "app", "--format", "table {{.Tag}}\\t{{.SizeBytes}}").out.splitlines()
    assert [line.split() for line in table] == [["TAG", "SIZE", "BYTES"], ["v2", "2048"], ["v3", "2048"]]


def test_json_by_either_word_is_the_same(kpod: Kpod, two: FakeNode) -> None:
    assert kpod("images", "--format", "json").out == kpod("images", "--json").out


def test_whole_ids_and_no_config_is_asked_for_in_vain(kpod: Kpod, two: FakeNode) -> None:
    assert A in kpod("images", "--no-trunc", "--digests", "-a").out
    assert two.http_requests == []


@pytest.mark.parametrize("words", [("-q", "--json"), ("-q", "--format", "{{.ID}}")])
def test_what_makes_no_sense(kpod: Kpod, node: FakeNode, words: tuple[str, ...]) -> None:
    assert kpod("images", *words).status == 2


@pytest.mark.parametrize("text", ["x", "reference=", "dangling=maybe", "size=3"])
def test_a_filter_that_nobody_knows_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_filter(text)


def test_a_filter_by_an_image_that_is_not_there_is_told(kpod: Kpod, two: FakeNode) -> None:
    said = kpod("images", "-f", "since=none")
    assert said.status == 1
    assert "none" in said.err


@pytest.mark.parametrize(
    "created", ["9999-12-31T23:59:59.9999-12:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.9999Z"]
)
def test_moments_beyond_the_calendar_are_none(kpod: Kpod, two: FakeNode, created: str) -> None:
    two.http_answers["/images/config"] = json.dumps({"created": created}).encode()
    said = kpod("images", "busybox", "--format", "{{.Created}}")
    assert (said.status, said.out) == (0, "1970-01-01T00:00:00+00:00\n")
