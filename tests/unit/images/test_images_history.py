"""images.history: steps and layers, also of configs that do not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.image_store import add_image, image_store

from criollo.images.context import Images
from criollo.images.history import history, tree
from criollo.model.image import Image

A, B, C = "a" * 32, "b" * 32, "c" * 32
STEPS = [
    {"created_by": "ADD", "created": "2026-01-01T00:00:00Z"},
    {"created_by": "ENV", "empty_layer": True},
    {"created_by": "RUN", "comment": "c"},
]


def image_of(images: Images, image_id: str, layers: list[str], steps: Any) -> Image:
    config = json.dumps({"history": steps, "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    return add_image(images, image_id * 64, names=[f"example.com/{image_id}:1"], layers=layers, config=config)


def test_steps_are_told_newest_first_with_their_layers(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        steps = history(images, image_of(images, "1", [A, B], STEPS))
    assert [(each.created_by, each.layer, each.empty, each.size_bytes) for each in steps] == [
        ("RUN", B, False, 10),
        ("ENV", "", True, 0),
        ("ADD", A, False, 10),
    ]


@pytest.mark.parametrize("steps", [None, 5, [], [7, {"created_by": 5}], STEPS[:1], STEPS * 3])
def test_no_layer_is_left_out_whatever_the_history_says(tmp_path: Path, steps: Any) -> None:
    with image_store(tmp_path) as images:
        found = history(images, image_of(images, "1", [A, B, C], steps))
    assert [each.layer for each in found if each.layer] == [C, B, A]


@given(
    config=st.binary()
    | st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5).map(
        lambda v: json.dumps({"history": v}).encode()
    )
)
def test_any_config_has_a_history(tmp_path_factory: pytest.TempPathFactory, config: bytes) -> None:
    with image_store(tmp_path_factory.mktemp("store")) as images:
        assert len(history(images, add_image(images, "1" * 64, layers=[A], config=config))) >= 1


def test_shared_layers_are_told_with_who_shares_them(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        one = image_of(images, "1", [A, B], STEPS)
        image_of(images, "2", [A, C], STEPS)
        found = tree(images, one)
    assert [(each.layer, each.created_by, each.shared_with) for each in found.layers] == [
        (A, "ADD", ["example.com/2:1"]),
        (B, "RUN", []),
    ]
    assert (found.size_bytes, found.shared_bytes, found.unique_bytes) == (20, 10, 10)
