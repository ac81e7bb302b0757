"""images.resolve and images.remove: which image a text means, and what goes when it is removed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.image_store import add_image, image_store

from criollo.errors import Invalid, NotFound, WrongState
from criollo.images.context import Images
from criollo.images.remove import remove_image
from criollo.images.resolve import find, match, require
from criollo.registry.hosts import Hosts

CAFE = "cafe" + "0" * 60
CAB1, CAB2 = "cab1e5" + "1" * 58, "cab1e5" + "2" * 58
DIGEST = "sha256:" + "d" * 64


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    with image_store(tmp_path) as store:
        asyncio.run(store.layers.open())
        add_image(
            store, CAFE, names=["docker.io/library/cafe:latest", "example.com/team/app:v1"], digests=[f"a.example/b@{DIGEST}"]
        )
        add_image(store, CAB1)
        add_image(store, CAB2)
        yield store


@pytest.mark.parametrize(
    ("text", "image_id", "name"),
    [
        (CAFE, CAFE, ""),
        (f"sha256:{CAFE}", CAFE, ""),
        (CAFE[:6], CAFE, ""),
        (CAFE[:63], CAFE, ""),
        ("cafe", CAFE, "docker.io/library/cafe:latest"),
        ("docker.io/cafe", CAFE, "docker.io/library/cafe:latest"),
        ("EXAMPLE.com/team/app:v1", CAFE, "example.com/team/app:v1"),
        (f"a.example/b@{DIGEST}", CAFE, f"a.example/b@{DIGEST}"),
        (f"a.example/b:any@{DIGEST}", CAFE, f"a.example/b@{DIGEST}"),
        (CAB1[:6], None, ""),  # two begin so
        (CAFE[:5], None, ""),
        (CAFE.upper(), None, ""),
        ("example.com/team/app", None, ""),
        (f"example.com/team/app:v1@{DIGEST}", None, ""),
        ("", None, ""),
        ("a b", None, ""),
        ("0" * 64, None, ""),
    ],
)
def test_what_a_text_means(images: Images, text: str, image_id: str | None, name: str) -> None:
    found = match(images, text)
    assert (found and found.image.id, found.name if found else "") == (image_id, name)


def test_a_short_name_belongs_to_the_configured_registry(images: Images) -> None:
    images.hosts = Hosts(search=["example.com"])
    found = match(images, "team/app:v1")
    assert found is not None
    assert found.name == "example.com/team/app:v1"


@given(st.text(max_size=80))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_means_an_image_or_none(images: Images, text: str) -> None:
    find(images, text)


def test_a_required_image_that_is_missing_says_to_pull_it(images: Images) -> None:
    with pytest.raises(NotFound, match=r"not\.here/x:y not found: pull it first"):
        require(images, "not.here/x:y")
    with pytest.raises(Invalid):
        require(images, "")


def left(images: Images, text: str) -> tuple[str, ...] | None:
    """The names that image CAFE has after a removal."""
    asyncio.run(remove_image(images, text))
    image = images.rows.get(CAFE)
    return None if image is None else image.names


def test_a_name_that_looks_like_the_beginning_of_the_id_is_a_name(images: Images) -> None:
    assert left(images, "cafe") == ("example.com/team/app:v1",)
    assert left(images, "cafe") == ("example.com/team/app:v1",)
    assert left(images, "example.com/team/app:v1") is None


def test_a_digest_is_taken_away_alone(images: Images) -> None:
    assert left(images, f"a.example/b@{DIGEST}") == ("docker.io/library/cafe:latest", "example.com/team/app:v1")
    image = images.rows.get(CAFE)
    assert image is not None
    assert image.digests == ()


@pytest.mark.parametrize("text", [CAFE, f"sha256:{CAFE}", CAFE[:8]])
def test_an_id_takes_everything(images: Images, text: str) -> None:
    assert left(images, text) is None
    assert images.rows.by_reference("docker.io/library/cafe:latest") is None


def test_an_image_in_use_may_lose_names_but_the_last(images: Images) -> None:
    images.in_use = lambda image_id: ["c" * 64] if image_id == CAFE else []
    assert left(images, "cafe") == ("example.com/team/app:v1",)
    for text in (CAFE, "example.com/team/app:v1"):
        with pytest.raises(WrongState, match="in use by container cccccccccccc"):
            asyncio.run(remove_image(images, text))
    assert images.rows.get(CAFE) is not None
