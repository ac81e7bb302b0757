"""containers.storage_limit: whose word about a writable layer counts."""

import pytest

from criollo.containers.storage_limit import INODES, SIZE, limit_of
from criollo.errors import Invalid
from criollo.model.container import ContainerConfig, ImageSpec
from criollo.model.pod import PodConfig
from criollo.specgen.request import Defaults
from criollo.storage.base import Limit

NODE = Limit(1 << 30, 1000)
ALLOWED = Defaults(allowed_annotations=(SIZE, INODES))


def limit(own: dict[str, str], pod: dict[str, str], defaults: Defaults = ALLOWED) -> Limit:
    config = ContainerConfig(name="web", image=ImageSpec(image="i"), annotations=own)
    above = PodConfig(name="p", uid="u", namespace="n", annotations=pod)
    return limit_of(config, above, defaults, otherwise=NODE)


@pytest.mark.parametrize(
    ("own", "pod", "expected"),
    [
        ({}, {}, NODE),
        ({SIZE: "2g"}, {SIZE: "3g"}, Limit(2 << 30, 1000)),
        ({}, {SIZE: "3g", f"{SIZE}/web": "4g", f"{SIZE}/other": "5g"}, Limit(4 << 30, 1000)),
        ({}, {f"{SIZE}/other": "5g"}, NODE),
        ({}, {SIZE: "3g", INODES: "7"}, Limit(3 << 30, 7)),
        ({SIZE: "0"}, {}, Limit(0, 1000)),
    ],
)
def test_the_nearest_word_counts(own: dict[str, str], pod: dict[str, str], expected: Limit) -> None:
    assert limit(own, pod) == expected


def test_annotations_that_the_handler_does_not_allow_are_passed_over() -> None:
    assert limit({SIZE: "2g"}, {SIZE: "lots"}, Defaults(allowed_annotations=())) == NODE


def test_default_of_the_handler_comes_before_that_of_the_node() -> None:
    handler = Defaults(annotations={SIZE: "5g"}, allowed_annotations=(SIZE,))
    assert limit({}, {}, handler) == Limit(5 << 30, 1000)
    assert limit({}, {SIZE: "6g"}, handler) == Limit(6 << 30, 1000)


@pytest.mark.parametrize("key", [SIZE, INODES])
def test_malformed_annotations_are_named(key: str) -> None:
    with pytest.raises(Invalid, match=f"annotation {key}"):
        limit({key: "lots"}, {})
