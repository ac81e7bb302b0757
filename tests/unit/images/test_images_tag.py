"""images.tag: names are given and taken; nothing else changes."""

from pathlib import Path

import msgspec
import pytest
from support.image_store import add_image, image_store

from criollo.errors import Invalid, NotFound, WrongState
from criollo.images.context import Images
from criollo.images.tag import tag_image, untag_image

ONE, TWO = "1" * 64, "2" * 64
NAME = "docker.io/library/one:latest"


def filled(images: Images) -> None:
    add_image(images, ONE, names=[NAME], digests=["docker.io/library/one@sha256:" + "a" * 64])
    add_image(images, TWO, names=["example.com/two:1"])


def test_a_name_is_added_in_full_and_the_rest_stays(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        filled(images)
        before = images.rows.get(ONE)
        assert before is not None
        assert tag_image(images, "one", ["other", "example.com/x:1"]) == ["docker.io/library/other:latest", "example.com/x:1"]
        after = images.rows.get(ONE)
        assert after is not None
        assert set(after.names) == {NAME, "docker.io/library/other:latest", "example.com/x:1"}
        assert msgspec.structs.replace(after, names=before.names) == before


def test_a_name_moves_from_another_image(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        filled(images)
        tag_image(images, TWO, ["one"])
        assert [image.names for image in (images.rows.get(ONE), images.rows.get(TWO)) if image] == [
            (),
            (NAME, "example.com/two:1"),
        ]


def test_untag_takes_the_named_or_all_tags_and_leaves_the_image(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        filled(images)
        tag_image(images, ONE, ["a", "b"])
        assert untag_image(images, ONE, ["a"]) == ["docker.io/library/a:latest"]
        assert sorted(untag_image(images, ONE)) == ["docker.io/library/b:latest", NAME]
        assert untag_image(images, ONE) == []
        left = images.rows.get(ONE)
        assert left is not None
        assert (left.names, len(left.digests)) == ((), 1)
        assert untag_image(images, ONE, [left.digests[0]]) == list(left.digests)


@pytest.mark.parametrize("new", [(), ("UPPER",), ("a@sha256:" + "b" * 64,), ("a:b:c",)])
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, new: tuple[str, ...]) -> None:
    with image_store(tmp_path) as images:
        filled(images)
        with pytest.raises(Invalid):
            tag_image(images, ONE, new)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        filled(images)
        for call in (lambda: tag_image(images, "none", ["a"]), lambda: untag_image(images, ONE, ["example.com/two:1"])):
            with pytest.raises(NotFound):
                call()


def test_an_image_of_another_tools_store_is_left_alone(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        filled(images)
        theirs = msgspec.structs.replace(images.rows.all()[0], store="/var/lib/containers")
        images.rows.get = lambda _: theirs  # type: ignore[method-assign]
        with pytest.raises(WrongState, match="only read"):
            tag_image(images, ONE, ["a"])
