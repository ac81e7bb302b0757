"""From registry to registry: what lies is found out before it is sent, what is there is not sent, the tag comes last."""

import json
import os
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.asking import ask
from support.bad_registry import BadRegistry, cut_after, flip, hang_after, run_bad_registry, status
from support.daemon import wait_for
from support.images import file, make_image, make_index
from support.upload_registry import UploadRegistry, run_upload_registry

from criollo.errors import CriolloError, Damaged, Denied, Invalid, NotFound
from criollo.images import copy
from criollo.images.copy import Copied, CopyWish, Gathered, copy_image
from criollo.images.copyregistry import Destination, RegistryTarget
from criollo.images.copysources import RegistrySource, Trust
from criollo.images.progress import Progress
from criollo.oci.digest import Digest
from criollo.oci.image_spec import Descriptor, decode_manifest
from criollo.oci.reference import Reference
from criollo.oci.signature import SIGSTORE_TYPE, sigstore
from criollo.registry.client import Registry
from criollo.registry.connections import Limits
from criollo.registry.hosts import Hosts
from criollo.registry.registries_conf import Mirror, Rule
from criollo.trust.judge import Judge
from criollo.trust.policies import Policies
from criollo.trust.policy import Policy

T = TypeVar("T")

QUICK = Limits(connect_s=60, idle_s=60, document_s=60, rounds=3, backoff_s=0.001, longest_wait_s=0.05, keep_s=0.01)
ONE = make_image([[file("a", "x" * 100)]])
INDEX = make_index([ONE, make_image([[file("b")]], platform={"os": "linux", "architecture": "s390x"})])
OPENPGP = b"\xa3 a signature"


@pytest.fixture
def bad() -> Iterator[BadRegistry]:
    with run_bad_registry() as running:
        running.add("team/app", "v1", INDEX)
        yield running


@pytest.fixture
def taking() -> Iterator[UploadRegistry]:
    with run_upload_registry() as running:
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy, "_PAUSES_S", (0.01, 0.02, 0.03))


def conf(path: Path, **places: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "default.yaml").write_text(json.dumps({"default-docker": {"lookaside": f"file://{path}/theirs", **places}}))
    return path


def copied(
    bad: BadRegistry,
    taking: UploadRegistry,
    root: Path,
    *,
    wish: CopyWish = CopyWish(every=True),  # noqa: B008 - it is frozen
    target: str = "other/app:v2",
    **more: Any,
) -> Copied:
    """Copy team/app:v1; `more` are `places` of the target, the `policy`, `mirrors` of the source."""
    policy = more.get("policy", [{"type": "insecureAcceptAnything"}])
    judge = Judge(Policies.of(Policy.parse(json.dumps({"default": policy}).encode(), where="test")), scratch=root / "gpg")
    rules = [
        Rule(prefix=bad.host, location=bad.host, insecure=True, mirror=more.get("mirrors", ())),
        Rule(prefix=taking.host, location=taking.host, insecure=True),
    ]

    async def work(client: Registry) -> Copied:
        ref = Reference.parse(f"{bad.host}/team/app:v1")
        source = RegistrySource(client, ref, None, trust=Trust(judge, conf(root / "theirs.d")))
        there = Reference.parse(f"{taking.host}/{target}")
        found = Destination(there, sources=more.get("sources", ()), places=more.get("places"))
        return await copy_image(source, RegistryTarget(client, found), wish, Progress("t"))

    return ask(Hosts(rules), work, limits=QUICK)


def put(taking: UploadRegistry, work: Callable[[RegistryTarget], Awaitable[T]]) -> T:
    """What `work` gives, which is handed the target other/app:v2."""
    hosts = Hosts([Rule(prefix=taking.host, location=taking.host, insecure=True)])
    place = Destination(Reference.parse(f"{taking.host}/other/app:v2"))
    return ask(hosts, lambda client: work(RegistryTarget(client, place)), limits=QUICK)


def test_an_index_arrives_whole_and_its_tag_last(bad: BadRegistry, taking: UploadRegistry, tmp_path: Path) -> None:
    done = copied(bad, taking, tmp_path)
    assert (done.digest, done.sent) == (INDEX.digest, 4)
    assert {name.partition(" ")[2]: content for name, content in taking.blobs.items()} == ONE.blobs | INDEX.images[1].blobs
    puts = [each.text for each in taking.requests if "/manifests/" in each.text]
    assert puts == [f"PUT /v2/other/app/manifests/{each.digest}" for each in INDEX.images] + ["PUT /v2/other/app/manifests/v2"]
    assert taking.manifests["other/app v2"] == INDEX.manifest
    taking.requests.clear()
    assert copied(bad, taking, tmp_path).sent == 0
    assert not taking.asked("POST")


def test_blobs_of_the_repository_that_is_copied_are_taken_from_it(
    bad: BadRegistry, taking: UploadRegistry, tmp_path: Path
) -> None:
    taking.blobs = {f"team/app {digest}": content for digest, content in ONE.blobs.items()}
    done = copied(bad, taking, tmp_path, wish=CopyWish(), sources=("team/app",))
    assert (done.digest, done.sent) == (ONE.digest, 0)
    assert len(taking.asked("POST /v2/other/app/blobs/uploads/?mount=")) == 2


@pytest.mark.parametrize("part", ["/blobs/", "/manifests/sha256"])
def test_wrong_bytes_are_never_sent(bad: BadRegistry, taking: UploadRegistry, tmp_path: Path, part: str) -> None:
    bad.break_at(part, flip())
    with pytest.raises(Damaged):
        copied(bad, taking, tmp_path)
    assert (taking.blobs, taking.manifests, taking.asked("PUT")) == ({}, {}, [])
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.d"]


def test_a_mirror_that_lies_is_left_out(bad: BadRegistry, taking: UploadRegistry, tmp_path: Path) -> None:
    with run_bad_registry() as mirror:
        mirror.add("team/app", "v1", INDEX)
        mirror.break_at("/blobs/", flip())
        mirrors = (Mirror(location=mirror.host, insecure=True),)
        assert copied(bad, taking, tmp_path, mirrors=mirrors).sent == 4
        assert mirror.asked("/blobs/")


def test_a_blob_that_breaks_off_goes_on_where_it_was(bad: BadRegistry, taking: UploadRegistry, tmp_path: Path) -> None:
    bad.break_at("/blobs/", cut_after(10), times=2)
    assert copied(bad, taking, tmp_path).sent == 4


def test_an_upload_that_is_cut_is_begun_anew(bad: BadRegistry, taking: UploadRegistry, tmp_path: Path) -> None:
    taking.cut_bodies = 2
    assert copied(bad, taking, tmp_path).sent == 4
    assert {name.partition(" ")[2]: content for name, content in taking.blobs.items()} == ONE.blobs | INDEX.images[1].blobs


def test_a_large_blob_goes_through_while_it_comes(taking: UploadRegistry, tmp_path: Path) -> None:
    image = make_image([[file("a", os.urandom(3 << 20))]], compression="none")
    largest = max(image.blobs, key=lambda digest: len(image.blobs[digest]))
    with run_bad_registry() as bad:
        bad.add("team/app", "v1", image)
        bad.break_at(largest, hang_after(2 << 20), times=1)

        def release() -> None:
            wait_for(lambda: taking.under_way > 1 << 20)
            bad.released.set()

        with ThreadPoolExecutor() as beside:
            released = beside.submit(release)
            assert copied(bad, taking, tmp_path).digest == image.digest
            released.result()
    assert {name.partition(" ")[2]: content for name, content in taking.blobs.items()} == image.blobs


@pytest.mark.parametrize("code", [500, 403])
def test_a_target_that_fails_has_no_tag(bad: BadRegistry, taking: UploadRegistry, tmp_path: Path, code: int) -> None:
    taking.answer_for["PUT /v2/other/app/blobs"] = [(201, {}), *[(code, {})] * 20]
    with pytest.raises(CriolloError):
        copied(bad, taking, tmp_path)
    assert taking.manifests == {}


def test_a_policy_that_refuses_one_platform_stops_all(bad: BadRegistry, taking: UploadRegistry, tmp_path: Path) -> None:
    with pytest.raises(Denied, match="reject"):
        copied(bad, taking, tmp_path, policy=[{"type": "reject"}])
    assert taking.requests == []
    assert not bad.asked("/blobs/")


def test_a_target_by_digest_must_be_what_is_copied(bad: BadRegistry, taking: UploadRegistry, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=INDEX.digest):
        copied(bad, taking, tmp_path, target=f"other/app@{ONE.digest}")
    assert taking.requests == []
    copied(bad, taking, tmp_path, target=f"other/app@{INDEX.digest}")
    assert taking.manifests[f"other/app {INDEX.digest}"] == INDEX.manifest


def test_simple_signatures_go_into_the_lookaside_of_the_target(
    bad: BadRegistry, taking: UploadRegistry, tmp_path: Path
) -> None:
    theirs = tmp_path / f"theirs.d/theirs/team/app@{ONE.digest.replace(':', '=')}"
    theirs.mkdir(parents=True)
    (theirs / "signature-1").write_bytes(OPENPGP)
    ours = conf(tmp_path / "ours.d", **{"lookaside-staging": f"file://{tmp_path}/staging"})
    for _ in range(2):
        assert copied(bad, taking, tmp_path, places=ours).signatures == 1
        [kept] = (tmp_path / "staging").rglob("signature-*")
        assert kept.read_bytes() == OPENPGP
        assert kept.parent.name == f"app@{ONE.digest.replace(':', '=')}"
    taking.requests.clear()
    remote = conf(tmp_path / "web.d", lookaside="https://example.com/sigs")
    with pytest.raises(Invalid, match="lookaside-staging"):
        copied(bad, taking, tmp_path, places=remote)
    assert taking.requests == []
    assert copied(bad, taking, tmp_path, places=remote, wish=CopyWish(every=True, signatures=False)).signatures == 0


def test_sigstore_signatures_are_attached(taking: UploadRegistry, tmp_path: Path) -> None:
    signature = sigstore(b"payload", media_type=SIGSTORE_TYPE, annotations={"dev.cosignproject.cosign/signature": "MEUC"})

    async def work(target: RegistryTarget) -> None:
        node = Gathered(Digest(ONE.digest), ONE.manifest, decode_manifest(ONE.manifest), (signature.to_blob(),))
        await target.prepare([node])
        await target.put_signatures(Digest(ONE.digest), [signature.to_blob()])

    taking.answer_for[f"GET /v2/other/app/manifests/sha256-{ONE.digest[7:]}.sig"] = [(404, {})] * 9
    put(taking, work)
    [name] = taking.manifests
    assert name == f"other/app sha256-{ONE.digest[7:]}.sig"
    [layer] = json.loads(taking.manifests[name])["layers"]
    assert taking.blobs[f"other/app {layer['digest']}"] == b"payload"


def test_a_blob_of_another_size_is_sent_anew(taking: UploadRegistry) -> None:
    content = b"content"
    blob = Descriptor(media_type="x", digest=Digest.of(content), size=len(content))

    async def work(target: RegistryTarget) -> list[bool]:
        found = []
        for there in (b"", content):
            taking.blobs[f"other/app {blob.digest}"] = there
            found.append(await target.has(blob))
        return found

    assert put(taking, work) == [False, True]


def test_a_source_without_the_image_is_told(bad: BadRegistry, taking: UploadRegistry, tmp_path: Path) -> None:
    bad.break_at("/manifests/v1", status(404))
    with pytest.raises(NotFound):
        copied(bad, taking, tmp_path)
