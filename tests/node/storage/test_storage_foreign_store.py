"""Stores of containers/storage as skopeo leaves them, and as nobody should: what is read, what is refused and why."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.containers_storage import HandmadeStore, skopeo_copy
from support.images import Image, directory, file, make_image, make_index, opaque, whiteout

from criollo.errors import CriolloError, Damaged, Denied, Invalid, Unsupported
from criollo.storage.foreign import MAX_RECORDS_BYTES, Contents, check_trees, layer_path, read_store

pytestmark = pytest.mark.node

NAME = "example.com/team/app:v1"
IMAGE = make_image(
    [
        [directory("d"), file("d/low", "low"), file("gone", "x")],
        [whiteout("gone"), opaque("d"), directory("e"), file("e/high", "high")],
    ]
)


def handmade(tmp_path: Path, image: Image = IMAGE) -> HandmadeStore:
    store = HandmadeStore(tmp_path / "store")
    store.add(image, NAME)
    return store


def refusal(store: HandmadeStore) -> CriolloError:
    """Why the only image of a store cannot be used."""
    found = read_store(store.root, {})
    assert found.images == ()
    assert len(found.refused) == 1
    return found.refused[0][1]


def test_an_image_of_skopeo_is_read_with_its_layers(tmp_path: Path) -> None:
    root = tmp_path / "store"
    skopeo_copy(root, IMAGE, NAME, tmp_path)
    found = read_store(root, {})
    assert found.refused == ()
    (image,) = found.images
    assert image.config_digest.hex == IMAGE.id
    assert (image.manifest, image.config, image.digests) == (IMAGE.manifest, IMAGE.config, (IMAGE.digest,))
    assert image.record.names == (NAME,)
    low, high = (layer_path(root, layer) for layer in image.layers)
    assert (low / "d/low").read_text() == "low"
    assert os.lstat(high / "gone").st_rdev == 0
    assert os.getxattr(high / "d", "trusted.overlay.opaque") == b"y"
    check_trees(root, image.layers)


def test_documents_are_read_once(tmp_path: Path) -> None:
    store = handmade(tmp_path)
    (image,) = read_store(store.root, {}).images
    for path in (store.root / "overlay-images" / IMAGE.id).iterdir():
        path.unlink()
    assert read_store(store.root, {image.record: image}).images == (image,)
    assert "manifest is missing" in str(refusal(store))


def test_an_index_that_leads_to_the_image_is_a_digest_of_it(tmp_path: Path) -> None:
    store = handmade(tmp_path)
    index = make_index([IMAGE])
    store.document(IMAGE.id, f"manifest-{index.digest}", index.manifest)
    store.images[0]["big-data-names"] = ["manifest", f"manifest-{index.digest}", f"sha256:{IMAGE.id}"]
    store.write()
    (image,) = read_store(store.root, {}).images
    assert image.digests == (IMAGE.digest, index.digest)
    store.document(IMAGE.id, f"manifest-{index.digest}", b"{}")
    assert "not what its digest says" in str(refusal(store))


def test_a_list_of_manifests_is_no_image(tmp_path: Path) -> None:
    store = HandmadeStore(tmp_path / "store")
    store.images.append({"id": "a" * 64, "names": [NAME]})
    store.document("a" * 64, "manifest", make_index([IMAGE]).manifest)
    store.write()
    assert read_store(store.root, {}) == Contents((), ())


@pytest.mark.parametrize("empty", ["", "null", "[]", " \n"])
def test_a_store_without_records_is_empty(tmp_path: Path, empty: str) -> None:
    store = HandmadeStore(tmp_path / "store")
    assert read_store(store.root, {}) == Contents((), ())
    store.write()
    (store.root / "overlay-images/images.json").write_text(empty)
    assert read_store(store.root, {}) == Contents((), ())


def _cut(store: HandmadeStore) -> None:
    store.layers[1]["parent"] = "f" * 64


def _cycle(store: HandmadeStore) -> None:
    store.layers[0]["parent"] = store.layers[1]["id"]


def _dots(store: HandmadeStore) -> None:
    store.layers[0]["id"] = store.layers[1]["parent"] = "../../etc"


def _dotted_image(store: HandmadeStore) -> None:
    store.images[0]["id"] = "../overlay"


def _incomplete(store: HandmadeStore) -> None:
    store.layers[0]["flags"] = {"incomplete": True}


def _shifted(store: HandmadeStore) -> None:
    store.layers[0]["uidmap"] = [{"container_id": 0, "host_id": 100000, "size": 65536}]


def _other_layer(store: HandmadeStore) -> None:
    store.layers[0]["diff-digest"] = "sha256:" + "0" * 64


def _fewer(store: HandmadeStore) -> None:
    store.images[0]["layer"] = store.layers[0]["id"]


def _other_digest(store: HandmadeStore) -> None:
    store.images[0]["digest"] = "sha256:" + "0" * 64


def _no_digest(store: HandmadeStore) -> None:
    store.images[0]["digest"] = "../x"


def _other_config(store: HandmadeStore) -> None:
    store.document(IMAGE.id, f"sha256:{IMAGE.id}", b"{}")


def _linked_tree(store: HandmadeStore) -> None:
    diff = store.diff(store.layers[0]["id"])
    diff.rmdir()
    diff.symlink_to("/etc")


def _linked_layer(store: HandmadeStore) -> None:
    place = store.diff(store.layers[0]["id"]).parent
    place.rename(place.with_name("elsewhere"))
    place.symlink_to(place.with_name("elsewhere"))


def _linked_config(store: HandmadeStore) -> None:
    path = store.document(IMAGE.id, f"sha256:{IMAGE.id}", b"")
    path.unlink()
    path.symlink_to("/etc/shadow")


def _fifo(store: HandmadeStore) -> None:
    path = store.document(IMAGE.id, "manifest", b"")
    path.unlink()
    os.mkfifo(path, 0o600)


def _composefs(store: HandmadeStore) -> None:
    (store.diff(store.layers[0]["id"]).parent / "composefs-data").mkdir()


def _metacopy(store: HandmadeStore) -> None:
    os.setxattr(store.diff(store.layers[0]["id"]), "trusted.overlay.metacopy", b"")


def _forced_modes(store: HandmadeStore) -> None:
    os.setxattr(store.diff(store.layers[0]["id"]), "user.containers.override_stat", b"0:0:0755")


def _others_layer(store: HandmadeStore) -> None:
    os.chown(store.diff(store.layers[0]["id"]).parent, 1000, 1000)


def _others_manifest(store: HandmadeStore) -> None:
    os.chmod(store.document(IMAGE.id, "manifest", IMAGE.manifest), 0o666)


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (_cut, Damaged, "is not in overlay-layers/layers.json"),
        (_cycle, Invalid, "a chain of layers without end"),
        (_dots, Invalid, "64 lower-case hex digits"),
        (_dotted_image, Invalid, "64 lower-case hex digits"),
        (_incomplete, Damaged, "is incomplete"),
        (_shifted, Unsupported, "shifted owners"),
        (_other_layer, Damaged, "its config says"),
        (_fewer, Invalid, "as the image's config says"),
        (_other_digest, Damaged, "manifest is not what its digest"),
        (_no_digest, Invalid, "sha256:"),
        (_other_config, Damaged, "config is not what its digest"),
        (_linked_tree, Damaged, "links are not followed"),
        (_linked_layer, Damaged, "links are not followed"),
        (_linked_config, Damaged, "links are not followed"),
        (_fifo, Invalid, "a regular file"),
        (_composefs, Unsupported, "composefs"),
        (_metacopy, Unsupported, "metacopy"),
        (_forced_modes, Unsupported, "force_mask"),
        (_others_layer, Denied, "belongs to user 1000"),
        (_others_manifest, Denied, "has mode 0666"),
    ],
)
def test_an_image_that_cannot_be_trusted_is_refused_alone(
    tmp_path: Path, spoil: Callable[[HandmadeStore], None], kind: type[CriolloError], said: str
) -> None:
    store = handmade(tmp_path)
    spoil(store)
    store.write()
    error = refusal(store)
    assert isinstance(error, kind)
    assert said in str(error)
    sound = make_image([[file("f", "sound")]])
    store.add(sound, "example.com/sound:v1")
    assert [image.config_digest.hex for image in read_store(store.root, {}).images] == [sound.id]


def _others_store(store: HandmadeStore) -> None:
    os.chown(store.root, 1000, 1000)


def _open_store(store: HandmadeStore) -> None:
    os.chmod(store.root, 0o1777)


def _open_parent(store: HandmadeStore) -> None:
    os.chmod(store.root.parent, 0o777)


def _mount_program(store: HandmadeStore) -> None:
    (store.root / "overlay/.has-mount-program").write_text("true")


def _other_driver(store: HandmadeStore) -> None:
    (store.root / "overlay-images").rename(store.root / "vfs-images")


def _no_json(store: HandmadeStore) -> None:
    (store.root / "overlay-images/images.json").write_text('[{"id":')


def _deep_json(store: HandmadeStore) -> None:
    (store.root / "overlay-layers/layers.json").write_text('[{"flags":' + '{"a":' * 100_000)


def _huge_json(store: HandmadeStore) -> None:
    os.truncate(store.root / "overlay-layers/layers.json", MAX_RECORDS_BYTES + 1)


def _linked_json(store: HandmadeStore) -> None:
    path = store.root / "overlay-images/images.json"
    path.rename(path.with_name("other.json"))
    path.symlink_to("other.json")


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (_others_store, Denied, "belongs to user 1000"),
        (_open_store, Denied, "has mode 1777"),
        (_open_parent, Denied, "has mode 0777"),
        (_mount_program, Unsupported, "fuse-overlayfs"),
        (_other_driver, Unsupported, "no directory overlay-images"),
        (_no_json, Invalid, "the records of containers/storage"),
        (_deep_json, Invalid, "the records of containers/storage"),
        (_huge_json, Invalid, "at most"),
        (_linked_json, Damaged, "links are not followed"),
    ],
)
def test_a_store_that_cannot_be_trusted_is_refused(
    tmp_path: Path, spoil: Callable[[HandmadeStore], None], kind: type[CriolloError], said: str
) -> None:
    store = handmade(tmp_path)
    spoil(store)
    with pytest.raises(kind, match=said):
        read_store(store.root, {})


def test_a_layer_that_went_is_found_missing(tmp_path: Path) -> None:
    store = handmade(tmp_path)
    (image,) = read_store(store.root, {}).images
    store.diff(image.layers[1]).rmdir()
    with pytest.raises(Damaged, match="has no directory diff"):
        check_trees(store.root, image.layers)


RECORDS = st.lists(
    st.dictionaries(
        st.sampled_from(
            ["id", "parent", "layer", "digest", "diff-digest", "diff-size", "names", "flags", "big-data-names", "uidmap"]
        ),
        st.none()
        | st.integers()
        | st.text(max_size=3)
        | st.sampled_from(["a" * 64, "b" * 64, IMAGE.digest])
        | st.lists(st.text()),
    ),
    max_size=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(images=RECORDS | st.text(), layers=RECORDS | st.text())
def test_any_records_are_images_or_refused(tmp_path: Path, images: object, layers: object) -> None:
    root = tmp_path / "store"
    for place, records in (("overlay-images/images.json", images), ("overlay-layers/layers.json", layers)):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        text = records if isinstance(records, str) else json.dumps(records)
        (root / place).write_text(text, errors="surrogatepass")
    (root / "overlay").mkdir(exist_ok=True)
    try:
        found = read_store(root, {})
    except Invalid:
        return
    assert found.images == ()
