"""images.copy: what is copied in which order, what is judged, what is refused before anything moves."""

import asyncio
import json
import os
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.images import Image, Index, file, make_image, make_index

from criollo.errors import CriolloError, Damaged, Denied, Invalid, NotFound
from criollo.images import copy
from criollo.images.copy import Copied, CopyWish, Document, Gathered, copy_image
from criollo.images.copyflow import Anew, Pour
from criollo.images.progress import LayerProgress, Progress
from criollo.oci.digest import Digest
from criollo.oci.image_spec import DOCKER_FOREIGN_LAYER, OCI_INDEX, Descriptor
from criollo.oci.platform import Platform

ELSEWHERE = {"os": "linux", "architecture": "s390x"}
EVERY = CopyWish(every=True)


class Shelf:
    """A source and a target in memory; `told` is what was done, in order."""

    def __init__(self, *images: Image | Index) -> None:
        self.documents: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.signed: dict[str, tuple[bytes, ...]] = {}
        self.refused: set[str] = set()
        self.top: bytes = b""
        self.told: list[str] = []
        self.tries = self.failures = 0
        for image in images:
            for part in image.images if isinstance(image, Index) else (image,):
                self.documents[part.digest] = part.manifest
                self.blobs.update(part.blobs)
            self.documents[image.digest] = self.top = image.manifest

    async def document(self, digest: Digest | None) -> Document:
        if digest is None:
            return Document(self.top)
        if digest not in self.documents:
            raise NotFound("manifest", digest)
        return Document(self.documents[digest])

    async def pour(self, blob: Descriptor, sink_fd: int, bar: LayerProgress) -> None:
        if blob.digest not in self.blobs:
            raise NotFound("blob", blob.digest)
        self.tries += 1
        if self.tries <= self.failures:
            os.write(sink_fd, b"x")
            raise Anew("try again")
        os.write(sink_fd, self.blobs[blob.digest])

    async def signatures(self, found: Document, *, carried: bool) -> Sequence[bytes]:
        return self.signed.get(Digest.of(found.raw), ())

    async def judge(self, found: Document, blobs: Sequence[bytes]) -> None:
        self.told.append("judge")
        if Digest.of(found.raw) in self.refused:
            raise Denied("not this one")

    async def prepare(self, nodes: Sequence[Gathered]) -> None:
        self.told.append(f"prepare {sum(len(node.signatures) for node in nodes)}")

    async def has(self, blob: Descriptor) -> bool:
        return blob.digest in self.blobs

    async def put(self, blob: Descriptor, pour: Pour) -> None:
        fd = os.memfd_create("blob")
        try:
            await pour(fd)
            self.blobs[blob.digest] = os.pread(fd, blob.size + 1, 0)
        finally:
            os.close(fd)
        self.told.append("blob")

    async def put_document(self, digest: Digest, raw: bytes, media_type: str) -> None:
        self.told.append("document")
        self.documents[digest] = raw

    async def put_signatures(self, digest: Digest, blobs: Sequence[bytes]) -> None:
        self.told.append("signatures")
        self.signed[digest] = tuple(blobs)

    async def finish(self, digest: Digest, raw: bytes, media_type: str) -> None:
        self.told.append("finish")
        self.documents[digest] = self.top = raw


def copied(source: Shelf, target: Shelf, wish: CopyWish = EVERY) -> Copied:
    return asyncio.run(copy_image(source, target, wish, Progress("test")))


def index_of(*digests: str, **more: Any) -> bytes:
    entries = [{"mediaType": OCI_INDEX, "digest": digest, "size": 1} for digest in digests]
    return json.dumps({"schemaVersion": 2, "manifests": entries, **more}).encode()


@pytest.mark.parametrize("docker", [False, True])
def test_all_that_an_index_lists_comes_before_the_index(docker: bool) -> None:
    images = [make_image([[file("a")]], docker=docker), make_image([[file("b")]], platform=ELSEWHERE, docker=docker)]
    index = make_index(images, docker=docker, attestation=True)
    source, target = Shelf(index), Shelf()
    done = copied(source, target)
    assert (done.digest, done.manifests, done.blobs, done.sent) == (index.digest, 3, 4, 4)
    assert (target.documents, target.blobs, target.top) == (source.documents, source.blobs, index.manifest)
    assert target.told == ["prepare 0", *["blob"] * 4, *["document"] * 2, "finish"]
    assert source.told == ["judge"] * 2


def test_what_is_there_is_not_sent_again() -> None:
    index = make_index([make_image([[file("a")]]), make_image([[file("b")]], platform=ELSEWHERE)])
    source, target = Shelf(index), Shelf(index)
    target.blobs.popitem()
    done = copied(source, target)
    assert (done.blobs, done.sent) == (4, 1)


def test_one_platform_is_copied_without_the_index() -> None:
    here, there = make_image([[file("a")]]), make_image([[file("b")]], platform=ELSEWHERE)
    target = Shelf()
    assert copied(Shelf(make_index([here, there])), target, CopyWish()).digest == here.digest
    assert target.documents == {here.digest: here.manifest}
    wish = CopyWish(platform=Platform.normal("linux", "s390x"))
    assert copied(Shelf(make_index([here, there])), Shelf(), wish).digest == there.digest


@pytest.mark.parametrize("fault", ["manifest", "blob", "policy"])
def test_a_copy_that_fails_gives_no_name(fault: str) -> None:
    first, second = make_image([[file("a")]]), make_image([[file("b")]], platform=ELSEWHERE)
    source, target = Shelf(make_index([first, second])), Shelf()
    if fault == "manifest":
        del source.documents[second.digest]
    elif fault == "blob":
        source.blobs.popitem()
    else:
        source.refused.add(second.digest)
    with pytest.raises((NotFound, Denied)):
        copied(source, target)
    assert target.top == b""
    assert "document" not in target.told
    assert fault == "blob" or target.told == []


def test_signatures_go_along_before_the_name_or_stay_behind() -> None:
    first, second = make_image([[file("a")]]), make_image([[file("b")]], platform=ELSEWHERE)
    index = make_index([first, second])
    source = Shelf(index)
    source.signed = {first.digest: (b"one",), index.digest: (b"two", b"three")}
    target = Shelf()
    assert copied(source, target).signatures == 3
    assert target.signed == source.signed
    assert target.told[-3:] == ["signatures", "signatures", "finish"]
    assert target.told[0] == "prepare 3"
    target = Shelf()
    assert copied(source, target, CopyWish(every=True, signatures=False)).signatures == 0
    assert target.signed == {}


def test_a_foreign_layer_may_be_missing_and_no_other() -> None:
    image = make_image([[file("a")]])
    manifest = json.loads(image.manifest)
    manifest["layers"][0]["mediaType"] = f"{DOCKER_FOREIGN_LAYER}.gzip"
    source, raw = Shelf(image), json.dumps(manifest).encode()
    source.top = source.documents[Digest.of(raw)] = raw
    del source.blobs[manifest["layers"][0]["digest"]]
    target = Shelf()
    done = copied(source, target)
    assert (done.sent, done.missing) == (1, (manifest["layers"][0]["digest"],))
    assert target.top == raw


def test_index_bombs_are_refused_before_they_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Shelf()
    source.top = index_of(*("sha256:" + f"{number:064x}" for number in range(1001)))
    with pytest.raises(Invalid, match="at most 1000"):
        copied(source, Shelf())
    lists = [index_of(*("sha256:" + f"{start + number:064x}" for number in range(600))) for start in (0, 600)]
    source.documents = {Digest.of(raw): raw for raw in lists}
    source.top = index_of(*source.documents)
    monkeypatch.setattr(copy, "MAX_DOCUMENTS_BYTES", 1000)
    with pytest.raises(Invalid, match="at most 1000 bytes together"):
        copied(source, Shelf())


def test_indexes_of_indexes_end() -> None:
    image = make_image([[file("a")]])
    source = Shelf(image)
    for _ in range(2):
        raw = index_of(Digest.of(source.top))
        source.documents[Digest.of(raw)] = source.top = raw
    target = Shelf()
    assert copied(source, target).manifests == 3
    assert list(target.documents) == list(source.documents)
    raw = index_of(Digest.of(source.top))
    source.top = raw
    with pytest.raises(Invalid, match="levels"):
        copied(source, Shelf())


def test_a_blob_without_end_is_refused_before_anything_moves() -> None:
    image = make_image([[file("a")]])
    manifest = json.loads(image.manifest)
    manifest["layers"][0]["size"] = 1 << 60
    source, target = Shelf(image), Shelf()
    source.top = json.dumps(manifest).encode()
    with pytest.raises(Invalid, match="at most"):
        copied(source, target)
    assert "blob" not in target.told


def test_a_blob_that_may_work_is_tried_again_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy, "_PAUSES_S", (0, 0))
    source, target = Shelf(make_image([[file("a")]])), Shelf()
    source.failures = 2
    assert copied(source, target).sent == 2
    assert target.blobs == source.blobs
    source.tries, source.failures, target = 0, 99, Shelf()
    with pytest.raises(Anew):
        copied(source, target)
    assert (target.blobs, target.top) == ({}, b"")


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists, max_leaves=4).map(
        lambda value: json.dumps({"schemaVersion": 2, "manifests": value}).encode()
    )
)
def test_any_document_is_copied_or_refused(raw: bytes) -> None:
    source, target = Shelf(), Shelf()
    source.top = raw
    try:
        copied(source, target)
    except CriolloError:
        assert target.top == b""
    else:
        assert target.top == raw


def test_damage_at_the_source_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = Shelf(make_image([[file("a")]])), Shelf()

    async def lie(digest: Digest | None) -> Document:
        raise Damaged("its bytes have another digest")

    monkeypatch.setattr(source, "document", lie)
    with pytest.raises(Damaged):
        copied(source, target)
    assert target.told == []
