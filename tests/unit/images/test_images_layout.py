"""images.layout: what directories name, whoever made them; archives are hostile bytes."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.images import OCI_MANIFEST, Image, digest_of, file, make_image, make_index, write_oci_layout

from criollo.errors import CriolloError, Damaged, Invalid, NotFound
from criollo.images.layout import CONTAINERD_NAME, REF_NAME, Found, LayerFile, encode_manifest, read_layout, synthesize
from criollo.oci.digest import Digest
from criollo.oci.image_spec import Manifest, decode_manifest

ARM = {"os": "linux", "architecture": "arm64"}


@pytest.fixture(scope="module")
def image() -> Image:
    return make_image([[file("a")], [file("b")]])


def read(path: Path, name: str = "") -> list[Found]:
    directory = os.open(path, os.O_RDONLY)
    try:
        return list(read_layout(directory, name=name))
    finally:
        os.close(directory)


def rewrite(path: Path, change: Any) -> Path:
    """Change the index in place."""
    document = json.loads((path / "index.json").read_text())
    change(document)
    (path / "index.json").write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("annotations", "given_name", "names"),
    [
        ({}, "", ()),
        ({REF_NAME: "v1"}, "", ()),
        ({REF_NAME: "example.com/app:v1"}, "", ("example.com/app:v1",)),
        ({REF_NAME: "app:v1"}, "", ("docker.io/library/app:v1",)),
        ({REF_NAME: "v1", CONTAINERD_NAME: "example.com/app:v2"}, "", ("example.com/app:v2",)),
        ({}, "app", ("docker.io/library/app:latest",)),
        ({REF_NAME: "v1"}, "example.com/app", ("example.com/app:v1",)),
        ({REF_NAME: "v1"}, "localhost:5000/app", ("localhost:5000/app:v1",)),
        ({REF_NAME: "v1"}, "example.com/app:mine", ("example.com/app:mine",)),
        ({REF_NAME: "example.com/app:v1"}, "other.example/x:y", ("example.com/app:v1",)),
        ({CONTAINERD_NAME: f"example.com/app@{digest_of(b'')}"}, "", ()),
    ],
)
def test_names_come_from_the_layout_or_the_caller(
    tmp_path: Path, image: Image, annotations: dict[str, str], given_name: str, names: tuple[str, ...]
) -> None:
    path = rewrite(write_oci_layout(tmp_path, {"": image}), lambda index: index["manifests"][0].update(annotations=annotations))
    (found,) = read(path, given_name)
    assert found.names == names
    assert found.digests == tuple(f"{name.rpartition(':')[0]}@{image.digest}" for name in names)


def test_documents_and_files_of_an_image(tmp_path: Path, image: Image) -> None:
    (found,) = read(write_oci_layout(tmp_path, {"example.com/a:b": image}))
    assert (found.raw_manifest, found.config) == (image.manifest, image.config)
    expected = [LayerFile(f"blobs/sha256/{layer.digest[7:]}", Digest(layer.digest)) for layer in image.layers]
    assert list(found.layer_files) == expected


def test_an_index_leads_to_this_platform_and_keeps_its_own_digest(tmp_path: Path, image: Image) -> None:
    index = make_index([make_image([[file("other")]], platform=ARM), image], attestation=True)
    (found,) = read(write_oci_layout(tmp_path, {"example.com/a:b": index}))
    assert found.raw_manifest == image.manifest
    assert set(found.digests) == {f"example.com/a@{digest}" for digest in (index.digest, image.digest)}


def test_entries_for_others_and_attachments_are_passed_over(tmp_path: Path, image: Image) -> None:
    attachment = json.loads(image.manifest)
    attachment["config"]["mediaType"] = "application/vnd.acme.signature"
    raw = json.dumps(attachment).encode()
    path = write_oci_layout(tmp_path, {"example.com/a:b": image})
    (path / "blobs/sha256" / digest_of(raw)[7:]).write_bytes(raw)

    def add(index: Any) -> None:
        index["manifests"][:0] = [
            {"mediaType": OCI_MANIFEST, "digest": digest_of(b"not even here"), "size": 1, "platform": ARM},
            {"mediaType": OCI_MANIFEST, "digest": digest_of(raw), "size": len(raw)},
        ]

    assert [found.names for found in read(rewrite(path, add))] == [("example.com/a:b",)]


def test_a_foreign_index_is_told(tmp_path: Path) -> None:
    path = write_oci_layout(tmp_path, {"example.com/a:b": make_index([make_image([[file("other")]], platform=ARM)])})
    with pytest.raises(NotFound, match="linux/arm64"):
        read(path)


def test_indexes_of_indexes_end(tmp_path: Path) -> None:
    path = write_oci_layout(tmp_path, {"x": make_image([])})
    inner: dict[str, Any] = {"schemaVersion": 2, "manifests": []}
    for _ in range(4):
        raw = json.dumps(inner).encode()
        (path / "blobs/sha256" / digest_of(raw)[7:]).write_bytes(raw)
        entry = {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest_of(raw), "size": len(raw)}
        inner = {"schemaVersion": 2, "manifests": [entry]}
    (path / "index.json").write_text(json.dumps(inner))
    with pytest.raises(Invalid, match="at most 2 levels"):
        read(path)


@pytest.mark.parametrize("which", ["manifest", "config"])
def test_a_changed_or_missing_document_is_damage(tmp_path: Path, image: Image, which: str) -> None:
    path = write_oci_layout(tmp_path, {"x": image})
    document = path / "blobs/sha256" / {"manifest": image.digest[7:], "config": image.id}[which]
    document.write_bytes(document.read_bytes() + b" ")
    with pytest.raises(Damaged, match="is not what its digest says; make the archive again"):
        read(path)
    document.unlink()
    with pytest.raises(Damaged, match="is missing"):
        read(path)


@pytest.mark.parametrize(
    ("tags", "given_name", "names"),
    [
        (["app:v1", "example.com/b:c"], "", ("docker.io/library/app:v1", "example.com/b:c")),
        (None, "", ()),
        ([], "app", ("docker.io/library/app:latest",)),
        (["app:v1"], "other", ("docker.io/library/app:v1",)),
    ],
)
def test_dockers_names(tmp_path: Path, tags: list[str] | None, given_name: str, names: tuple[str, ...]) -> None:
    image = make_image([[file("a")]], compression="none")
    (tmp_path / "c.json").write_bytes(image.config)
    (tmp_path / "manifest.json").write_text(json.dumps([{"Config": "c.json", "RepoTags": tags, "Layers": ["l.tar"]}]))
    (found,) = read(tmp_path, given_name)
    assert (found.names, found.digests) == (names, ())
    assert found.layer_files == (LayerFile("l.tar"),)
    assert [str(layer.digest) for layer in found.manifest.layers] == image.diff_ids
    assert decode_manifest(found.raw_manifest) == found.manifest


def test_a_manifest_of_our_making_is_read_as_it_was_meant() -> None:
    image = make_image([[file("a")], [file("b")]])
    manifest = synthesize(image.config, (1, 2))
    again = decode_manifest(encode_manifest(manifest))
    assert isinstance(again, Manifest)
    assert [(str(layer.digest), layer.size) for layer in again.layers] == list(zip(image.diff_ids, (1, 2), strict=True))
    assert again.config.digest.hex == image.id


def test_links_lead_nowhere_outside(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    write_oci_layout(outside, {"example.com/a:b": make_image([])})
    inside.mkdir()
    for name in ("index.json", "oci-layout", "blobs"):
        (inside / name).symlink_to(outside / name)
    with pytest.raises(Invalid, match=r"neither index\.json nor manifest\.json"):
        read(inside)


KEYS = "schemaVersion mediaType manifests digest size config layers annotations platform Config Layers RepoTags".split()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def somewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return tmp_path_factory.mktemp("layout")


@pytest.mark.parametrize("name", ["index.json", "manifest.json"])
@given(document=st.binary(max_size=64) | json_values.map(lambda value: json.dumps(value).encode()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_document_is_read_or_refused(somewhere: Path, name: str, document: bytes) -> None:
    for other in ("index.json", "manifest.json"):
        (somewhere / other).unlink(missing_ok=True)
    (somewhere / name).write_bytes(document)
    with contextlib.suppress(CriolloError):
        read(somewhere)


@given(path=st.text(max_size=20) | st.just("x" * 5000) | st.just("/" * 300) | st.just("."), tag=st.text(max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_path_and_tag_in_dockers_list_is_read_or_refused(somewhere: Path, path: str, tag: str) -> None:
    (somewhere / "index.json").unlink(missing_ok=True)
    (somewhere / "manifest.json").write_text(json.dumps([{"Config": path, "Layers": [path], "RepoTags": [tag]}]))
    with pytest.raises(CriolloError):
        read(somewhere)
