"""The client against a registry that lies, stalls and breaks off: real sockets on loopback, no root."""

import asyncio
import contextlib
import os
import select
import threading

import msgspec
import pytest
from support import leaks
from support.asking import ask
from support.bad_registry import (
    EMPTY_IMAGE,
    challenge,
    cut_after,
    cut_at_once,
    drip,
    endless,
    extra,
    flip,
    hang,
    hang_after,
    headers,
    ignore_range,
    redirect,
    run_bad_registry,
    run_bad_registry_of,
    status,
)
from support.registry import DEAD_HOST
from support.waiting import PATIENCE_S

from criollo.errors import Damaged, Exhausted, Forbidden, Invalid, NotFound, Unauthenticated, Unavailable, Unsupported
from criollo.oci.digest import Digest
from criollo.oci.image_spec import OCI_LAYER, Descriptor, decode_manifest
from criollo.oci.reference import Reference
from criollo.registry.auth import Credentials
from criollo.registry.blobs import ReaderGone
from criollo.registry.connections import Limits
from criollo.registry.hosts import Hosts
from criollo.registry.registries_conf import Mirror, Rule

QUICK = Limits(rounds=3, backoff_s=0.001, longest_wait_s=0.05, keep_s=0.01, limited_backoff_s=0.001)
IMPATIENT = msgspec.structs.replace(QUICK, idle_s=0.3, document_s=0.5, limited_s=0.2)  # with hosts that never get it right
CONTENT = bytes(range(256)) * 4096  # 1 MiB
ALICE = Credentials(username="alice", password="hunter2")


@pytest.fixture
def bad():
    with run_bad_registry_of(CONTENT) as registry:
        yield registry


def insecure(*hosts):
    return [Rule(prefix=host, location=host, insecure=True) for host in hosts]


def using(rules, work, limits=QUICK):
    """Run `work(client)` in a loop of its own with a client for these rules."""
    return ask(Hosts(rules), work, limits=limits)


def manifest(bad, text="team/app:v1", credentials=None, limits=QUICK):
    ref = Reference.parse(f"{bad.host}/{text}")
    return using(insecure(bad.host), lambda client: client.manifest(ref, credentials), limits)


def descriptor(content=CONTENT, size=None):
    return Descriptor(media_type=OCI_LAYER, digest=Digest.of(content), size=len(content) if size is None else size)


def blob(bad, wanted=None, *, rules=None, limits=QUICK):
    """The bytes that reached the sink, and how many the progress calls told."""
    told = []
    sink = os.memfd_create("sink")
    ref = Reference.parse(f"{bad.host}/team/app:v1")
    try:
        using(
            rules or insecure(bad.host),
            lambda client: client.blob(ref, wanted or descriptor(), sink, progress=told.append),
            limits,
        )
        return os.pread(sink, 1 << 22, 0), sum(told)
    finally:
        os.close(sink)


def test_a_manifest_comes_with_type_digest_and_source(bad):
    found = manifest(bad)
    assert found.raw == EMPTY_IMAGE.manifest
    assert found.media_type == EMPTY_IMAGE.media_type
    assert found.digest == EMPTY_IMAGE.digest
    assert found.source == f"{bad.host}/team/app"
    assert decode_manifest(found.raw, found.media_type).layers


def test_a_manifest_is_found_by_digest(bad):
    assert manifest(bad, f"team/app@{EMPTY_IMAGE.digest}").raw == EMPTY_IMAGE.manifest


def test_the_client_names_itself_and_refuses_encodings(bad):
    manifest(bad)
    (request,) = bad.asked("/manifests/")
    assert request.headers["user-agent"] == "criollo/test"
    assert request.headers["accept-encoding"] == "identity"
    assert EMPTY_IMAGE.media_type in request.headers["accept"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        *[
            (401, Unauthenticated),
            (403, Forbidden),
            (404, NotFound),
            (400, Unavailable),
            (405, Unavailable),
            (416, Unavailable),
        ],
        *[
            (429, Unavailable),
            (500, Unavailable),
            (503, Unavailable),
            (599, Unavailable),
            (204, Unavailable),
            (304, Unavailable),
        ],
        *[(300, Unavailable), (451, Unavailable), (999, Unavailable)],
    ],
)
def test_each_status_has_its_error(bad, code, error):
    bad.break_at("/manifests/", status(code))
    with pytest.raises(error, match=bad.host):
        manifest(bad, limits=IMPATIENT if code == 429 else QUICK)


def test_what_the_registry_says_is_shown_without_control_characters(bad):
    bad.break_at("/manifests/", status(403, b'{"errors":[{"code":"DENIED","message":"no\\u001b[31m way"}]}'))
    with pytest.raises(Forbidden, match=r"DENIED: no\\x1b\[31m way"):
        manifest(bad)


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b'{"errors":[]}', b'{"errors":[7]}', b'{"errors":' + b"[" * 9999, b"x" * 100_000]
)
def test_any_error_body_is_survived(bad, body):
    bad.break_at("/manifests/", status(404, body))
    with pytest.raises(NotFound):
        manifest(bad)


@pytest.mark.parametrize(
    "fault", [status(500), status(503, Retry_After="0"), status(429, Retry_After="0"), cut_at_once(), cut_after(10)]
)
def test_passing_failures_are_tried_again(bad, fault):
    bad.break_at("/manifests/", fault, times=2)
    assert manifest(bad).digest == EMPTY_IMAGE.digest
    assert len(bad.asked("/manifests/")) == 3


def test_settled_answers_are_not_asked_again(bad):
    with pytest.raises(NotFound, match=r"team/app:v2.*NAME_UNKNOWN"):
        manifest(bad, "team/app:v2")
    assert len(bad.asked("/manifests/")) == 1


@pytest.mark.parametrize("fault", [endless(), drip(0.05), hang(), hang_after(10)])
def test_a_stalling_manifest_ends_at_a_limit(bad, fault):
    bad.break_at("/manifests/", fault)
    with pytest.raises((Unavailable, Invalid), match=r"4194304 bytes|took over|no byte|no answer"):
        manifest(bad, limits=IMPATIENT)


def test_a_manifest_must_have_the_digest_it_was_asked_by(bad):
    bad.add_manifest("team/app", EMPTY_IMAGE.digest, EMPTY_IMAGE.media_type, b'{"other":1}')
    with pytest.raises(Damaged, match=r"bytes have digest sha256"):
        manifest(bad, f"team/app@{EMPTY_IMAGE.digest}")


def test_a_manifest_must_have_the_digest_its_header_names(bad):
    bad.break_at("/manifests/", headers(Docker_Content_Digest="sha256:" + "0" * 64))
    with pytest.raises(Damaged, match="names digest"):
        manifest(bad)


@pytest.mark.parametrize("named", ["", "junk", "sha256:../../canary", "md5:00"])
def test_a_header_that_is_no_digest_is_ignored(bad, named):
    bad.break_at("/manifests/", headers(Docker_Content_Digest=named))
    assert manifest(bad).digest == EMPTY_IMAGE.digest


def test_schema_1_is_named_by_the_decoder(bad):
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    bad.add_manifest("team/app", "old", kind, b'{"schemaVersion":1}')
    bad.break_at("/manifests/", headers(Docker_Content_Digest="sha256:" + "0" * 64))
    found = manifest(bad, "team/app:old")
    with pytest.raises(Unsupported, match="schema 1"):
        decode_manifest(found.raw, found.media_type)


def test_a_dead_registry_is_named_with_its_remedy():
    host = DEAD_HOST
    with pytest.raises(Unavailable, match=rf"cannot reach registry {host}: connection refused; check"):
        using(insecure(host), lambda client: client.manifest(Reference.parse(f"{host}/x")))


def test_a_name_that_does_not_resolve_is_named():
    with pytest.raises(Unavailable, match=r"registry nowhere\.invalid: its name does not resolve"):
        using([], lambda client: client.manifest(Reference.parse("nowhere.invalid/x")))


def test_plain_http_is_not_spoken_to_an_unmarked_host(bad):
    with pytest.raises(Unavailable, match="does not speak TLS"):
        using([], lambda client: client.manifest(Reference.parse(f"{bad.host}/team/app:v1")))
    assert bad.requests == []


# Blobs ----------------------------------------------------------------------------------------------------------------


def test_a_blob_reaches_the_sink_whole(bad):
    assert blob(bad) == (CONTENT, len(CONTENT))


def test_an_empty_blob_is_a_blob(bad):
    bad.add_blob("team/app", b"")
    assert blob(bad, descriptor(b"")) == (b"", 0)


@pytest.mark.parametrize("count", [0, 1, 1000, len(CONTENT) - 1])
def test_a_cut_blob_resumes_where_it_broke(bad, count):
    bad.break_at("/blobs/", cut_after(count), times=1)
    assert blob(bad) == (CONTENT, len(CONTENT))
    assert bad.asked("/blobs/")[1].headers.get("range") == (f"bytes={count}-" if count else None)


def test_a_server_without_ranges_sends_the_beginning_again(bad):
    bad.break_at("/blobs/", cut_after(70_000), times=1)
    bad.break_at("/blobs/", ignore_range())
    assert blob(bad) == (CONTENT, len(CONTENT))


def test_a_server_that_has_no_such_range_is_asked_for_all_of_it(bad):
    """At once, in the same round: those who cannot serve a part may well serve the whole."""
    bad.break_at("/blobs/", cut_after(70_000), times=1)
    bad.break_at("/blobs/", status(416, Content_Range=f"bytes */{len(CONTENT)}"), times=1)
    assert blob(bad, limits=msgspec.structs.replace(QUICK, rounds=2)) == (CONTENT, len(CONTENT))
    assert [each.headers.get("range") for each in bad.asked("/blobs/")] == [None, "bytes=70000-", None]


def test_a_server_that_has_no_range_and_no_whole_is_asked_no_further(bad):
    bad.break_at("/blobs/", cut_after(70_000), times=1)
    bad.break_at("/blobs/", status(416))
    with pytest.raises(Unavailable, match="it answers 416"):
        blob(bad)
    assert [each.headers.get("range") for each in bad.asked("/blobs/")] == [None, "bytes=70000-", None]


def test_a_server_whose_copy_is_shorter_than_what_we_have_is_told_so(bad):
    bad.break_at("/blobs/", cut_after(70_000), times=1)
    bad.break_at("/blobs/", status(416), times=1)
    bad.break_at("/blobs/", status(200, CONTENT[:1000]))
    with pytest.raises(Damaged, match="it has 1000 bytes"):
        blob(bad)


def test_a_mirror_without_the_range_leads_to_the_registry(bad, mirror):
    mirror.add_blob("m/team/app", CONTENT)
    mirror.break_at("/blobs/", cut_after(300_000), times=1)
    mirror.break_at("/blobs/", status(416))
    bad.break_at("/blobs/", cut_at_once(), times=1)
    assert blob(bad, rules=mirrored(bad, mirror)) == (CONTENT, len(CONTENT))
    assert len(mirror.asked("/blobs/")) == 3
    assert [each.headers.get("range") for each in bad.asked("/blobs/")] == ["bytes=300000-"] * 2


def test_patience_is_bounded_when_nothing_moves(bad):
    bad.break_at("/blobs/", cut_after(1))
    with pytest.raises(Unavailable, match="broke off"):
        blob(bad)
    assert len(bad.asked("/blobs/")) == QUICK.rounds


def test_progress_renews_patience(bad):
    content = CONTENT * 6
    bad.add_blob("team/app", content)
    bad.break_at("/blobs/", cut_after(len(CONTENT)), times=5)
    assert blob(bad, descriptor(content))[1] == len(content)


@pytest.mark.parametrize(
    "said", ["bytes 0-9/10", "bytes 5-9/1048576", "bytes x-y/z", "", "bytes 70000-1048575/7", "bytes ٧0-1/2"]
)
def test_another_range_than_asked_for_is_refused(bad, said):
    bad.break_at("/blobs/", cut_after(70_000), times=1)
    bad.break_at("/blobs/", headers(Content_Range=said.encode().decode("latin-1")))
    with pytest.raises(Unavailable, match="another range"):
        blob(bad)


def test_a_wrong_byte_is_found_at_the_end(bad):
    bad.break_at("/blobs/", flip(500_000))
    with pytest.raises(Damaged, match="push the image again"):
        blob(bad)
    assert len(bad.asked("/blobs/")) == 1


@pytest.mark.parametrize("fault", [extra(), extra(chunked=True), extra(b"x" * 200_000, chunked=True), endless()])
def test_one_byte_too_many_is_damage(bad, fault):
    bad.break_at("/blobs/", fault)
    with pytest.raises(Damaged, match="descriptor"):
        blob(bad)


def test_a_size_that_differs_is_found_before_the_first_byte(bad):
    with pytest.raises(Damaged, match="its descriptor says 7"):
        blob(bad, descriptor(size=7))


@pytest.mark.parametrize("fault", [hang(), hang_after(1000), drip(0.02)])
def test_a_blob_that_trickles_or_stops_ends_at_the_idle_limit(bad, fault):
    bad.break_at("/blobs/", fault)
    with pytest.raises(Unavailable, match=r"no byte|no answer|under 4096 bytes"):
        blob(bad, limits=IMPATIENT)


def test_a_full_disk_is_said(bad):
    ref = Reference.parse(f"{bad.host}/team/app:v1")
    with open("/dev/full", "wb") as full, pytest.raises(Exhausted, match="No space left"):
        using(insecure(bad.host), lambda client: client.blob(ref, descriptor(), full.fileno()))


def test_a_reader_that_ends_has_its_own_error(bad):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(ReaderGone):
            using(
                insecure(bad.host), lambda client: client.blob(Reference.parse(f"{bad.host}/team/app"), descriptor(), writing)
            )
    finally:
        os.close(writing)


async def cancelled_when(call, condition):
    """Start `call`, cancel it once `condition()` holds, and wait until it has ended."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(call)
        while not condition():
            await asyncio.sleep(0.005)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()


@pytest.mark.parametrize("fault", [hang(), hang_after(1000)])
def test_cancelling_ends_a_transfer_that_waits_for_the_registry(bad, fault):
    bad.break_at("/blobs/", fault)
    sink = os.memfd_create("sink")
    ref = Reference.parse(f"{bad.host}/team/app:v1")
    patient = Limits(idle_s=600)
    try:
        using(
            insecure(bad.host),
            lambda client: cancelled_when(client.blob(ref, descriptor(), sink), lambda: bad.asked("/blobs/")),
            patient,
        )
    finally:
        os.close(sink)


def test_cancelling_ends_a_transfer_that_waits_for_its_reader(bad):
    content = CONTENT * 4
    bad.add_blob("team/app", content)
    reading, writing = os.pipe()
    full = select.poll()
    full.register(writing, select.POLLOUT)
    ref = Reference.parse(f"{bad.host}/team/app:v1")
    try:
        using(
            insecure(bad.host),
            lambda client: cancelled_when(client.blob(ref, descriptor(content), writing), lambda: not full.poll(0)),
            Limits(idle_s=600),
        )
    finally:
        os.close(reading)
        os.close(writing)


def test_cancelling_ends_a_pause(bad):
    bad.break_at("/manifests/", status(503, Retry_After="600"))
    ref = Reference.parse(f"{bad.host}/team/app:v1")
    using(
        insecure(bad.host),
        lambda client: cancelled_when(client.manifest(ref), lambda: bad.asked("/manifests/")),
        Limits(longest_wait_s=600),
    )


def test_transfers_of_one_registry_are_limited(bad):
    released = threading.Event()
    seen = []

    def wait_with_others(handler, reply):
        seen.append(handler)
        released.wait(PATIENCE_S)
        return reply

    bad.break_at("/blobs/", wait_with_others)
    ref = Reference.parse(f"{bad.host}/team/app:v1")

    async def work(client):
        await client.manifest(ref)
        sinks = [os.memfd_create("sink") for _ in range(10)]
        async with asyncio.TaskGroup() as group:
            for sink in sinks:
                group.create_task(client.blob(ref, descriptor(), sink))
            while len(seen) < 6:
                await asyncio.sleep(0.005)
            first = len(seen)
            released.set()
        sizes = [os.fstat(sink).st_size for sink in sinks]
        for sink in sinks:
            os.close(sink)
        return first, sizes

    first, sizes = using(insecure(bad.host), work, Limits())
    assert first == 6
    assert sizes == [len(CONTENT)] * 10


# Mirrors --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror():
    with run_bad_registry() as registry:
        yield registry


def mirrored(bad, mirror):
    return [
        Rule(prefix=bad.host, location=bad.host, insecure=True, mirror=(Mirror(location=f"{mirror.host}/m", insecure=True),)),
    ]


def test_a_mirror_is_asked_first(bad, mirror):
    mirror.add("m/team/app", "v1", EMPTY_IMAGE)
    mirror.add_blob("m/team/app", CONTENT)
    ref = Reference.parse(f"{bad.host}/team/app:v1")
    sink = os.memfd_create("sink")

    async def work(client):
        found = await client.manifest(ref)
        await client.blob(ref, descriptor(), sink)
        return found

    assert using(mirrored(bad, mirror), work).source == f"{mirror.host}/m/team/app"
    assert os.fstat(sink).st_size == len(CONTENT)
    assert bad.requests == []
    os.close(sink)


@pytest.mark.parametrize(
    "fault", [status(404), status(500), status(401), status(403), cut_at_once(), redirect("file:///etc/shadow")]
)
def test_a_mirror_that_fails_is_passed_over(bad, mirror, fault):
    mirror.break_at("/", fault)
    ref = Reference.parse(f"{bad.host}/team/app:v1")
    found = using(mirrored(bad, mirror), lambda client: client.manifest(ref))
    assert found.source == f"{bad.host}/team/app"


def test_a_blob_cut_at_the_mirror_resumes_at_the_registry(bad, mirror):
    mirror.add("m/team/app", "v1", EMPTY_IMAGE)
    mirror.add_blob("m/team/app", CONTENT)
    mirror.break_at("/blobs/", cut_after(300_000))
    assert blob(bad, rules=mirrored(bad, mirror)) == (CONTENT, len(CONTENT))
    assert bad.asked("/blobs/")[0].headers["range"] == "bytes=300000-"


def test_the_registrys_own_answer_settles_it(bad, mirror):
    with pytest.raises(NotFound, match=bad.host):
        using(mirrored(bad, mirror), lambda client: client.manifest(Reference.parse(f"{bad.host}/team/app:none")))


def test_blocked_names_are_not_asked_for(bad):
    with pytest.raises(Forbidden):
        using([Rule(prefix=bad.host, blocked=True)], lambda client: client.manifest(Reference.parse(f"{bad.host}/x")))
    assert bad.requests == []


# Credentials and redirects --------------------------------------------------------------------------------------------


def secrets_in(registry):
    return [request for request in registry.requests if "authorization" in request.headers or "hunter2" in str(request)]


def test_a_password_is_only_sent_when_asked_for(bad):
    manifest(bad, credentials=ALICE)
    assert secrets_in(bad) == []


def test_basic_is_answered_once_and_then_remembered(bad):
    bad.break_at("/manifests/", challenge('Basic realm="x"'), times=1)
    ref = Reference.parse(f"{bad.host}/team/app:v1")

    async def work(client):
        await client.manifest(ref, ALICE)
        await client.manifest(ref, ALICE)

    using(insecure(bad.host), work)
    assert ["authorization" in request.headers for request in bad.requests] == [False, True, True]


def test_a_refused_password_is_not_tried_again(bad):
    bad.break_at("/manifests/", challenge('Basic realm="x"'))
    with pytest.raises(Unauthenticated, match="refuses the credentials") as caught:
        manifest(bad, credentials=ALICE)
    assert len(bad.requests) == 2
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "Negotiate", "Bearer", 'Bearer realm="file:///x"', 'Bearer realm="http://u:p@h/t"', 'Bearer realm="h/t"']
)
def test_a_challenge_without_a_way_is_named(bad, text):
    bad.break_at("/manifests/", challenge(text))
    with pytest.raises(Unauthenticated, match=bad.host):
        manifest(bad, credentials=ALICE)
    assert secrets_in(bad) == []


def test_a_plain_token_server_elsewhere_gets_nothing(bad):
    bad.break_at("/manifests/", challenge('Bearer realm="http://token.example/t"'))
    with pytest.raises(Unauthenticated, match="over plain HTTP"):
        manifest(bad, credentials=ALICE)


def test_a_token_is_asked_for_this_repository_only(bad, mirror):
    mirror.add_manifest("x", "y", "application/json", b'{"token":"tok"}')
    realm = f"{mirror.url}/v2/x/manifests/y"
    bad.break_at("/manifests/", challenge(f'Bearer realm="{realm}",service="s",scope="repository:other/repo:push"'), times=1)
    assert manifest(bad, credentials=ALICE).digest == EMPTY_IMAGE.digest
    (request,) = mirror.requests
    assert request.path.endswith("?service=s&scope=repository%3Ateam%2Fapp%3Apull&account=alice")
    assert request.headers["authorization"].startswith("Basic ")
    assert bad.requests[-1].headers["authorization"] == "Bearer tok"


@pytest.mark.parametrize("fault", [status(401), status(403), status(200, b"<html>"), status(200, b"{}"), endless()])
def test_a_token_server_that_refuses_is_named(bad, mirror, fault):
    mirror.break_at("/", fault)
    bad.break_at("/manifests/", challenge(f'Bearer realm="{mirror.url}/t"'))
    with pytest.raises((Unauthenticated, Invalid), match=mirror.host):
        manifest(bad, credentials=ALICE)


@pytest.mark.parametrize(
    ("fault", "said", "limits"),
    [
        (redirect("/t"), "over 10 redirects", QUICK),
        (hang(), "no answer", IMPATIENT),
        (drip(0.05), ".", IMPATIENT),
        (cut_at_once(), ".", QUICK),
        (status(503), "answers 503", QUICK),
        (status(429, Retry_After="3600"), "fewer requests", QUICK),
        (status(429, Retry_After="Wed, 21 Oct 2099 07:28:00 GMT"), "fewer requests", QUICK),
    ],
)
def test_a_token_server_that_fails_ends_the_question(bad, mirror, fault, said, limits):
    mirror.add_manifest("x", "y", "application/json", b'{"token":"tok"}')
    mirror.break_at("/", fault)
    bad.break_at("/manifests/", challenge(f'Bearer realm="{mirror.url}/v2/x/manifests/y"'))
    with pytest.raises(Unavailable, match=said) as caught:
        manifest(bad, credentials=ALICE, limits=limits)
    assert mirror.host in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_password_does_not_follow_a_token_server_elsewhere(bad, mirror):
    with run_bad_registry() as elsewhere:
        elsewhere.add_manifest("x", "y", "application/json", b'{"token":"tok"}')
        mirror.break_at("/", redirect(f"{elsewhere.url}/v2/x/manifests/y"))
        bad.break_at("/manifests/", challenge(f'Bearer realm="{mirror.url}/t"'), times=1)
        rules = insecure(bad.host, mirror.host, elsewhere.host)
        ref = Reference.parse(f"{bad.host}/team/app:v1")
        assert using(rules, lambda client: client.manifest(ref, ALICE)).digest == EMPTY_IMAGE.digest
        assert len(elsewhere.requests) == 1
        assert secrets_in(elsewhere) == []


def test_credentials_for_another_server_are_shown_to_nobody(bad):
    bad.break_at("/manifests/", challenge('Basic realm="x"'), times=1)
    elsewhere = Credentials(username="alice", password="hunter2", server="registry.example.com")
    with pytest.raises(Unauthenticated):
        manifest(bad, credentials=elsewhere)
    assert secrets_in(bad) == []


def test_credentials_do_not_follow_a_redirect_elsewhere(bad, mirror):
    mirror.add("team/app", "v1", EMPTY_IMAGE)
    bad.break_at("/manifests/", challenge('Basic realm="x"'), times=1)
    bad.break_at("/manifests/", redirect(f"{mirror.url}/v2/team/app/manifests/v1"))
    assert manifest(bad, credentials=ALICE).digest == EMPTY_IMAGE.digest
    assert "authorization" in bad.requests[-1].headers
    assert secrets_in(mirror) == []


@pytest.mark.parametrize("text", ['Basic realm="x"', 'Bearer realm="http://127.0.0.1:1/t"'])
def test_a_redirect_target_that_wants_credentials_gets_none(bad, mirror, text):
    mirror.break_at("/", challenge(text))
    bad.break_at("/manifests/", redirect(f"{mirror.url}/v2/team/app/manifests/v1"))
    with pytest.raises(Unavailable, match="none are given to another host"):
        manifest(bad, credentials=ALICE)
    assert secrets_in(mirror) == []


def test_cookies_are_not_kept(bad):
    bad.break_at("/manifests/v1", status(307, Location="/v2/team/app/manifests/" + EMPTY_IMAGE.digest, Set_Cookie="a=b"))
    manifest(bad)
    assert all("cookie" not in request.headers for request in bad.requests)


def test_a_redirect_loop_ends(bad):
    bad.break_at("/manifests/", redirect("/v2/team/app/manifests/v1"))
    with pytest.raises(Unavailable, match="over 10 redirects"):
        manifest(bad)
    assert len(bad.requests) == 11


def test_a_redirect_body_is_not_read(bad):
    bad.break_at("/blobs/", redirect("/v2/team/app/manifests/v1"), times=1)
    bad.break_at("/manifests/", endless())
    with pytest.raises(Damaged):
        blob(bad)


def test_a_mirror_does_not_get_the_registrys_password(bad, mirror):
    mirror.break_at("/", challenge('Basic realm="x"'))
    bad.break_at("/manifests/", challenge('Basic realm="x"'), times=1)
    ref = Reference.parse(f"{bad.host}/team/app:v1")
    found = using(mirrored(bad, mirror), lambda client: client.manifest(ref, ALICE))
    assert found.source == f"{bad.host}/team/app"
    assert secrets_in(mirror) == []
    assert secrets_in(bad) != []


def test_nothing_stays_open_after_use(bad):
    before = leaks.descriptors()
    manifest(bad)
    blob(bad)
    assert leaks.new_descriptors(before) == []  # the server's side, in this process too, ends a moment later
