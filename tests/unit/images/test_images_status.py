"""images.status: pins and what an image's verbose status shows."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.image_store import add_image, image_store

from criollo.images.status import _matches, is_pinned, verbose


@pytest.mark.parametrize(
    ("rule", "name", "expected"),
    [
        ("a.example/b:c", "a.example/b:c", True),
        ("a.example/b:c", "a.example/b:cd", False),
        ("a.example/b", "a.example/b:c", False),
        ("a.example/*", "a.example/b:c", True),
        ("a.example/*", "b.example/a.example/x", False),
        ("*b*", "a.example/b:c", True),
        ("*z*", "a.example/b:c", False),
        ("*", "a.example/b:c", True),
        ("**", "a.example/b:c", True),
        ("*b:c", "a.example/b:c", False),
        ("", "a.example/b:c", False),
    ],
)
def test_rules_of_pins(rule: str, name: str, expected: bool) -> None:
    assert _matches(rule, name) is expected


@given(st.text(max_size=20))
def test_every_name_fits_itself_its_beginning_and_its_middle(name: str) -> None:
    plain = name.strip("*")
    assert _matches(plain, plain)
    assert _matches(plain[: len(plain) // 2] + "*", plain)
    assert _matches(f"*{plain[1:3]}*", plain)


def test_one_pinned_name_pins_the_image(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        named = add_image(images, "a" * 64, names=["a.example/b:c", "x.example/y:z"])
        nameless = add_image(images, "b" * 64)
        assert not is_pinned(images, named)
        images.pinned = ("x.example/*", "other")
        assert is_pinned(images, named)
        assert not is_pinned(images, nameless)


def test_a_name_with_a_digest_can_be_pinned(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        by_digest = add_image(images, "a" * 64, digests=[f"a.example/pause@sha256:{'d' * 64}"])
        for rule in (f"a.example/pause@sha256:{'d' * 64}", "a.example/*", "*pause*"):
            images.pinned = (rule,)
            assert is_pinned(images, by_digest)


def test_verbose_status_is_the_images_own_config(tmp_path: Path) -> None:
    config = {"config": {"Labels": {"a": "b"}}, "rootfs": {"type": "layers", "diff_ids": []}, "unknown": [1]}
    with image_store(tmp_path) as images:
        image = add_image(images, "a" * 64, config=json.dumps(config).encode())
        assert json.loads(verbose(images, image)["info"]) == {"labels": {"a": "b"}, "imageSpec": config}
