"""registry.uploads against a registry that takes uploads and fails on demand: real sockets on loopback, no root."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest
from support.asking import ask, forget_schemes
from support.bad_registry import run_bad_registry
from support.upload_registry import UploadRegistry, run_upload_registry

from criollo.errors import Damaged, Forbidden, Unauthenticated, Unavailable
from criollo.oci.digest import Digest
from criollo.oci.image_spec import OCI_MANIFEST
from criollo.oci.reference import Reference
from criollo.registry.auth import Credentials
from criollo.registry.connections import Limits
from criollo.registry.hosts import Hosts
from criollo.registry.registries_conf import Mirror, Rule
from criollo.registry.uploads import BytesBody, FileBody, PipeBody, Unrepeatable, Uploads

T = TypeVar("T")

CONTENT = bytes(range(256)) * 2000
DIGEST = Digest.of(CONTENT)
ALICE = Credentials(username="alice", password="hunter2")
BASIC = ALICE.basic_header()
WANTS_BASIC = (401, {"WWW-Authenticate": 'Basic realm="x"'})
QUICK = Limits(connect_s=5, idle_s=5, document_s=5, rounds=3, backoff_s=0.001, longest_wait_s=0.05, keep_s=0.01)


@pytest.fixture
def taking() -> Iterator[UploadRegistry]:
    with run_upload_registry() as running:
        yield running


def using(
    taking: UploadRegistry,
    work: Callable[[Uploads], Awaitable[T]],
    *,
    shown: Credentials | None = None,
    sources: tuple[str, ...] = (),
    mirrors: tuple[Mirror, ...] = (),
    location: str = "",
) -> T:
    """Run `work` in a loop of its own with uploads into team/app:v1."""
    hosts = Hosts([Rule(prefix=taking.host, location=location or taking.host, insecure=True, mirror=mirrors)])
    ref = Reference.parse(f"{taking.host}/team/app:v1")
    return ask(hosts, lambda client: work(Uploads(client, ref, shown, sources=sources)), limits=QUICK)


def send(taking: UploadRegistry, body: FileBody | BytesBody | None = None, **options: Credentials) -> None:
    using(taking, lambda uploads: uploads.send(DIGEST, body or BytesBody(CONTENT)), shown=options.get("shown"))


def test_a_blob_is_sent_in_one_piece_and_is_there_then(taking: UploadRegistry) -> None:
    assert using(taking, lambda uploads: uploads.size_of(DIGEST)) is None
    send(taking)
    assert taking.blobs == {f"team/app {DIGEST}": CONTENT}
    assert using(taking, lambda uploads: uploads.size_of(DIGEST)) == len(CONTENT)
    [put] = taking.asked("PUT /v2/team/app/blobs/uploads/1?state=x&digest=sha256%3A")
    assert put.body == CONTENT


def test_a_blob_goes_where_its_upload_began_though_the_scheme_was_forgotten(
    taking: UploadRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_schemes(monkeypatch)
    send(taking)
    assert taking.blobs == {f"team/app {DIGEST}": CONTENT}


def test_a_file_is_sent_again_from_its_beginning_when_the_connection_broke(taking: UploadRegistry) -> None:
    taking.cut_bodies = 1
    told: list[int] = []
    fd = os.memfd_create("blob")
    try:
        os.write(fd, CONTENT)
        send(taking, FileBody(fd, len(CONTENT), told.append))
    finally:
        os.close(fd)
    assert taking.blobs == {f"team/app {DIGEST}": CONTENT}
    assert sum(told) == len(CONTENT)
    assert len(taking.asked("POST /v2/team/app/blobs/uploads/")) == 2


def through_pipe(taking: UploadRegistry, content: bytes, *, is_right: bool = True) -> None:
    source, sink = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), open(sink, "wb", buffering=0) as writer:
            view = memoryview(content)
            while view:
                view = view[writer.write(view) :]

    writing = threading.Thread(target=write)
    writing.start()
    try:
        using(taking, lambda uploads: uploads.send(DIGEST, PipeBody(source, len(CONTENT), lambda: is_right)))
    finally:
        os.close(source)
        writing.join()


def test_what_comes_through_a_pipe_is_sent_when_it_was_right(taking: UploadRegistry) -> None:
    through_pipe(taking, CONTENT)
    assert taking.blobs == {f"team/app {DIGEST}": CONTENT}


@pytest.mark.parametrize(
    ("content", "is_right"), [(CONTENT, False), (CONTENT[:-1], True), (CONTENT + b"x", True), (b"", False)]
)
def test_the_last_piece_of_what_was_wrong_is_never_sent(taking: UploadRegistry, content: bytes, is_right: bool) -> None:
    with pytest.raises(Unavailable):
        through_pipe(taking, content, is_right=is_right)
    assert (taking.blobs, taking.asked("PUT")) == ({}, [])


def test_a_pipe_that_has_been_read_is_not_sent_again(taking: UploadRegistry) -> None:
    taking.answer_for["PUT"] = [(500, {})]
    with pytest.raises(Unrepeatable, match="500"):
        through_pipe(taking, CONTENT)
    assert len(taking.asked("PUT")) == 1


@pytest.mark.parametrize("status", [500, 503, 429])
def test_what_may_pass_is_tried_again(taking: UploadRegistry, status: int) -> None:
    taking.answer_for["PUT"] = [(status, {"Retry-After": "0"})]
    send(taking)
    assert taking.blobs == {f"team/app {DIGEST}": CONTENT}


@pytest.mark.parametrize(("status", "error"), [(403, Forbidden), (405, Unavailable), (400, Unavailable)])
def test_a_refusal_is_told_with_the_repository(taking: UploadRegistry, status: int, error: type[Exception]) -> None:
    taking.answer_for["POST"] = [(status, {"body": '{"errors":[{"code":"UNSUPPORTED","message":"read only"}]}'})]
    with pytest.raises(error, match=rf"{taking.host}.*read only"):
        send(taking)
    assert taking.blobs == {}


def test_a_blob_comes_from_another_repository_of_the_registry(taking: UploadRegistry) -> None:
    taking.blobs[f"base/image {DIGEST}"] = CONTENT
    assert using(taking, lambda uploads: uploads.mount(DIGEST), sources=("no/such", "base/image")) is True
    assert taking.blobs[f"team/app {DIGEST}"] == CONTENT
    assert taking.asked("PUT") == []
    assert len(taking.asked("DELETE /v2/team/app/blobs/uploads/1")) == 1  # what the first try had begun


def test_a_registry_that_does_not_mount_begins_an_upload_which_is_ended(taking: UploadRegistry) -> None:
    taking.blobs[f"base/image {DIGEST}"] = CONTENT
    taking.mounts = False
    assert using(taking, lambda uploads: uploads.mount(DIGEST), sources=("base/image",)) is False
    assert len(taking.asked("DELETE")) == 1
    taking.answer_for["POST"] = [(404, {})]
    assert using(taking, lambda uploads: uploads.mount(DIGEST), sources=("base/image",)) is False


def test_nothing_is_asked_without_a_source_or_of_itself(taking: UploadRegistry) -> None:
    assert using(taking, lambda uploads: uploads.mount(DIGEST), sources=("team/app",)) is False
    assert taking.requests == []


def test_a_password_is_shown_when_it_is_asked_for(taking: UploadRegistry) -> None:
    taking.answer_for["POST"] = [WANTS_BASIC]
    send(taking, shown=ALICE)
    assert [each.authorization for each in taking.requests] == ["", BASIC, BASIC]


def test_a_wrong_password_is_told_and_not_repeated(taking: UploadRegistry) -> None:
    taking.answer_for["POST"] = [WANTS_BASIC] * 9
    with pytest.raises(Unauthenticated, match="refuses the credentials") as told:
        send(taking, shown=ALICE)
    assert "hunter2" not in str(told.value)
    assert len(taking.requests) == 2


def test_a_token_is_asked_for_pushing_and_for_reading_the_source(taking: UploadRegistry) -> None:
    with run_bad_registry() as tokens:
        tokens.add_manifest("t", "t", "application/json", b'{"token":"tok"}')
        realm = f'Bearer realm="{tokens.url}/v2/t/manifests/t",service="s"'
        taking.answer_for["POST"] = [(401, {"WWW-Authenticate": realm})]
        taking.blobs[f"base/image {DIGEST}"] = CONTENT
        assert using(taking, lambda uploads: uploads.mount(DIGEST), sources=("base/image",), shown=ALICE) is True
        [asked] = tokens.requests
    scopes = "scope=repository%3Ateam%2Fapp%3Apull%2Cpush&scope=repository%3Abase%2Fimage%3Apull"
    assert asked.path.endswith(f"?service=s&{scopes}&account=alice")
    assert taking.requests[-1].authorization == "Bearer tok"


def test_an_upload_to_another_server_gets_no_credentials(taking: UploadRegistry) -> None:
    with run_upload_registry() as elsewhere:
        taking.upload_host = elsewhere.host
        taking.answer_for["POST"] = [WANTS_BASIC]
        send(taking, shown=ALICE)
        assert [each.authorization for each in elsewhere.requests] == [""]
        assert elsewhere.blobs == {f"team/app {DIGEST}": CONTENT}
        elsewhere.answers.append(WANTS_BASIC)
        with pytest.raises(Unavailable, match="none are given to another host"):
            send(taking, shown=ALICE)
        assert {each.authorization for each in elsewhere.requests} == {""}


@pytest.mark.parametrize("location", ["", "ftp://x/y", "http://mirror.example/v2/x", "http://a b/x"])
def test_a_place_that_may_not_be_is_refused(taking: UploadRegistry, location: str) -> None:
    taking.answer_for["POST"] = [(202, {"Location": location} if location else {})]
    with pytest.raises(Unavailable):
        send(taking)
    assert taking.asked("PUT") == []


def test_mirrors_are_not_pushed_to(taking: UploadRegistry) -> None:
    with run_upload_registry() as mirror:
        using(
            taking,
            lambda uploads: uploads.send(DIGEST, BytesBody(CONTENT)),
            mirrors=(Mirror(location=f"{mirror.host}/team/app", insecure=True),),
        )
        assert mirror.requests == []


def test_a_location_is_not_pushed_to(taking: UploadRegistry) -> None:
    with run_upload_registry() as elsewhere:
        using(taking, lambda uploads: uploads.send(DIGEST, BytesBody(CONTENT)), location=f"{elsewhere.host}/moved")
        assert elsewhere.requests == []
    assert taking.blobs == {f"team/app {DIGEST}": CONTENT}


def test_a_manifest_is_put_under_its_tag(taking: UploadRegistry) -> None:
    raw = b'{"schemaVersion":2}'
    assert using(taking, lambda uploads: uploads.manifest(OCI_MANIFEST, raw)) == Digest.of(raw)
    assert taking.manifests == {"team/app v1": raw}


def test_a_registry_that_names_another_digest_is_not_believed(taking: UploadRegistry) -> None:
    taking.answer_for["PUT"] = [(201, {"Docker-Content-Digest": "sha256:" + "0" * 64})]
    with pytest.raises(Damaged, match="it is sha256"):
        using(taking, lambda uploads: uploads.manifest(OCI_MANIFEST, b"{}"))


def test_a_push_that_is_cancelled_has_ended(taking: UploadRegistry) -> None:
    async def work(uploads: Uploads) -> None:
        started = asyncio.Event()
        loop = asyncio.get_running_loop()
        task = loop.create_task(uploads.send(DIGEST, Endless(lambda: loop.call_soon_threadsafe(started.set))))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    using(taking, work)
    assert taking.blobs == {}


class Endless(BytesBody):
    """More than a socket takes before its reader reads, so the sender waits."""

    def __init__(self, begun: Callable[[], object]) -> None:
        super().__init__(b"")
        self.size, self._begun = 1 << 40, begun

    def read(self, count: int = -1, /) -> bytes:
        self._begun()
        return bytes(count)
