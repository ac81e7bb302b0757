"""storage.foreign as far as it needs no store of root's: names, stamps, what is refused at the door. More: tests/node."""

import re
from pathlib import Path

import pytest
from support.containers_storage import HandmadeStore
from support.images import make_image

from criollo.errors import Invalid, NotFound
from criollo.storage.foreign import layer_name, layer_path, read_store, stamp

LAYER = "ab" * 32


def test_a_layer_has_one_name_per_store() -> None:
    names = {layer_name(Path("/a"), LAYER), layer_name(Path("/b"), LAYER), layer_name(Path("/a"), "cd" * 32)}
    assert len(names) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in names)
    assert layer_path(Path("/a"), LAYER) == Path(f"/a/overlay/{LAYER}/diff")


def test_the_stamp_changes_with_the_records(tmp_path: Path) -> None:
    assert stamp(tmp_path / "none") == stamp(tmp_path / "none either")
    store = HandmadeStore(tmp_path / "store")
    store.write()
    before = stamp(store.root)
    assert stamp(store.root) == before
    store.add(make_image([b""]))
    after = stamp(store.root)
    assert after != before
    (store.root / "overlay-images/images.json").chmod(0o640)
    assert stamp(store.root) != after


@pytest.mark.parametrize("name", ["a,b", "a:b", "a\\b", "a\nb"])
def test_a_path_that_no_mount_can_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid, match="without comma, colon, backslash"):
        read_store(tmp_path / name, {})


def test_an_absent_store_and_a_link_to_one_are_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such directory"):
        read_store(tmp_path / "none", {})
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(NotFound, match="or a link"):
        read_store(tmp_path / "link", {})
