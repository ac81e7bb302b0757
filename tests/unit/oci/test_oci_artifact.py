"""oci.artifact: names of blobs that may become paths, and sub paths of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.artifacts import make_artifact

from criollo.errors import Invalid, NotFound
from criollo.oci.artifact import MODEL_PATH, TITLE, NamedBlob, artifact_id, named_blobs, select
from criollo.oci.digest import Digest
from criollo.oci.image_spec import Manifest, NotAnImage, decode_manifest

ONE, TWO = Digest.of(b"1"), Digest.of(b"2")


def manifest(*files: tuple[str, bytes], key: str = TITLE, **options: str) -> Manifest:
    found = decode_manifest(make_artifact(files, key=key, **options).manifest, artifacts=True)  # type: ignore[arg-type]
    assert isinstance(found, Manifest)
    return found


def names(*files: tuple[str, bytes], key: str = TITLE) -> list[str]:
    return [blob.name for blob in named_blobs(manifest(*files, key=key))]


def test_a_manifest_with_another_config_is_an_artifact_for_those_who_want_one() -> None:
    made = make_artifact({"a": b"1"})
    with pytest.raises(NotAnImage):
        decode_manifest(made.manifest)
    assert manifest(("a", b"1")).artifact_type == "application/vnd.example.thing"
    assert manifest(("a", b"1"), artifact_type="", config_type="application/x").artifact_type == "application/x"
    assert manifest(("a", b"1"), artifact_type="", config_type="").artifact_type == "unknown"
    assert artifact_id(made.manifest) == made.id


def test_an_artifact_type_must_be_text() -> None:
    document = {**json.loads(make_artifact({"a": b"1"}).manifest), "artifactType": 7}
    with pytest.raises(Invalid, match="artifactType"):
        decode_manifest(json.dumps(document).encode(), artifacts=True)


def test_blobs_have_the_names_of_their_annotations_in_one_spelling() -> None:
    assert names(("b/./c//d", b"1"), ("a b", b"2"), ("ü", b"3")) == ["b/c/d", "a b", "ü"]
    assert names(("w", b"1"), key=MODEL_PATH) == ["w"]
    assert names(("w", b"1"), key="org.cnai.model.filepath") == ["w"]
    assert names(("", b"1"), ("x", b"2")) == ["x"]
    assert names(("x", b"1"), key="another.key") == []


@pytest.mark.parametrize(
    "name",
    ["..", "../a", "a/..", "a/../b", "/a", "a/", ".", "./.", "a\nb", "a\0", "a\x7f", "a\u202eb", "x" * 256, "x/" * 600 + "y"],
)
def test_a_name_that_must_not_become_a_path_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="relative path of plain names"):
        names(("fine", b"1"), (name, b"2"))


def test_a_name_belongs_to_one_blob_and_is_no_directory_of_another() -> None:
    assert names(("a", b"1"), ("./a", b"1")) == ["a"]
    with pytest.raises(Invalid, match="no other blob"):
        names(("a", b"1"), ("a", b"2"))
    with pytest.raises(Invalid, match="without a file on the way"):
        names(("a/b", b"1"), ("a", b"2"))


@given(st.text(max_size=40))
def test_whatever_the_name_a_path_stays_below(name: str) -> None:
    try:
        found = names((name, b"1"))
    except Invalid:
        return
    for each in found:
        assert each
        assert not each.startswith("/")
        assert all(part not in ("", ".", "..") for part in each.split("/"))
        assert "\0" not in each
        assert "\n" not in each


def test_a_sub_path_keeps_what_is_below_it() -> None:
    blobs = [NamedBlob("a/x", ONE), NamedBlob("ab", TWO)]
    assert select(blobs, "", artifact="v") == blobs
    assert select(blobs, ".", artifact="v") == blobs
    assert select(blobs, "./a/", artifact="v") == [NamedBlob("x", ONE)]
    assert select(blobs, "ab", artifact="v") == [NamedBlob("", TWO)]


@pytest.mark.parametrize("sub_path", ["b", "a/y", "a/x/z", ".."])
def test_a_sub_path_without_blobs_is_not_found(sub_path: str) -> None:
    with pytest.raises(NotFound, match="does not exist in OCI artifact volume v"):
        select([NamedBlob("a/x", ONE)], sub_path, artifact="v")


def test_an_artifact_without_names_says_what_to_do() -> None:
    with pytest.raises(NotFound, match=TITLE):
        select([], "", artifact="v")
