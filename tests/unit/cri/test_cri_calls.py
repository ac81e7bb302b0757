"""The interceptor: what reaches the log and what does not."""

import asyncio
import io
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo import errors
from criollo.cri import grpc
from criollo.cri.calls import Calls, Method, after, show
from criollo.cri.errors import CODES, Code, Refused, bug, error_of, refusal
from criollo.cri.pb import api_pb2 as pb
from criollo.telemetry.log import context, set_up


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root, ours = logging.getLogger(), logging.getLogger("criollo")
    before = root.handlers[:], root.level, ours.level
    stream = io.StringIO()
    set_up("debug", stream=stream)
    yield stream
    root.handlers[:], root.level, ours.level = before[0], before[1], before[2]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def _method(name: str, handler: Any) -> Method:
    request, reply = getattr(pb, f"{name}Request"), getattr(pb, f"{name}Response")
    return Method("runtime.v1.RuntimeService", name, request, reply, False, handler)


def _answer(method: Method, request: Any, calls: Calls | None = None) -> bytes:
    return asyncio.run((calls or Calls()).answer(method, request.SerializeToString(), None))


def test_request_and_response_are_logged_with_an_id(lines: io.StringIO) -> None:
    async def created(request: Any) -> Any:
        return pb.CreateContainerResponse(container_id="c0ffee")

    config = pb.ContainerConfig(metadata=pb.ContainerMetadata(name="podsandbox1-redis"))
    _answer(_method("CreateContainer", created), pb.CreateContainerRequest(config=config))
    logged = lines.getvalue()
    assert "*v1.CreateContainerRequest: config:{ metadata:{ name:podsandbox1-redis" in logged
    assert "*v1.CreateContainerResponse: container_id:c0ffee" in logged
    assert logged.count("name=/runtime.v1.RuntimeService/CreateContainer") == 2


def test_lists_are_logged_as_counts(lines: io.StringIO) -> None:
    async def listed(request: Any) -> Any:
        return pb.ListContainersResponse(containers=[pb.Container(id="abc")] * 3)

    _answer(_method("ListContainers", listed), pb.ListContainersRequest())
    assert "ListContainersResponse: containers:3 items" in lines.getvalue()


def test_credentials_and_environment_values_never_reach_the_log(lines: io.StringIO) -> None:
    async def done(request: Any) -> Any:
        return pb.CreateContainerResponse()

    auth = pb.AuthConfig(username="u", password="S3CRET", auth="S3CRET", identity_token="S3CRET", registry_token="S3CRET")
    assert "S3CRET" not in show(pb.PullImageRequest(auth=auth))
    config = pb.ContainerConfig(envs=[pb.KeyValue(key="TOKEN", value=b"S3CRET")])
    _answer(_method("CreateContainer", done), pb.CreateContainerRequest(config=config))
    assert "TOKEN" in lines.getvalue()
    assert "S3CRET" not in lines.getvalue()


def test_shown_text_is_bounded() -> None:
    config = pb.ContainerConfig(
        args=["x" * 100_000] * 1000,
        labels={f"k{n}": "v" * 10_000 for n in range(1000)},
        mounts=[pb.Mount(host_path="/x")] * 1000,
    )
    assert len(show(config)) < 5000


def test_bug_is_logged_once_with_traceback_and_number(lines: io.StringIO) -> None:
    async def broken(request: Any) -> Any:
        raise ZeroDivisionError

    with pytest.raises(Refused) as caught:
        _answer(_method("StartContainer", broken), pb.StartContainerRequest())
    number = caught.value.text.split("error ")[1].split(";")[0]
    assert caught.value.code is Code.INTERNAL
    assert lines.getvalue().count("Traceback") == 1
    assert number in lines.getvalue()


def test_plain_handler_is_logged_with_an_id_that_ends_with_it(lines: io.StringIO) -> None:
    def version(request: Any) -> Any:
        assert (context.get() or {})["name"] == "/runtime.v1.RuntimeService/Version"
        return pb.VersionResponse(version="1")

    outside = context.get()
    method = Method("runtime.v1.RuntimeService", "Version", pb.VersionRequest, pb.VersionResponse, False, version, True)
    assert Calls().answer_at_once(method, b"") == pb.VersionResponse(version="1").SerializeToString()
    assert context.get() is outside
    ids = set(re.findall(r" id=([0-9a-f-]{36}) ", lines.getvalue()))
    assert len(ids) == 1


def test_timeout_of_the_handlers_own_is_a_bug_not_the_callers_deadline() -> None:
    async def broken(request: Any) -> Any:
        raise TimeoutError

    with pytest.raises(Refused) as caught:
        _answer(_method("StartContainer", broken), pb.StartContainerRequest())
    assert caught.value.code is Code.INTERNAL


def test_observer_hears_of_every_end() -> None:
    heard: list[tuple[str, Code]] = []

    async def denied(request: Any) -> Any:
        raise errors.Denied("no")

    with pytest.raises(Refused):
        _answer(_method("StartContainer", denied), pb.StartContainerRequest(), Calls(lambda n, s, c: heard.append((n, c))))
    assert heard == [("StartContainer", Code.PERMISSION_DENIED)]


def test_every_error_class_has_a_code() -> None:
    own = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.CriolloError)}
    assert own - {errors.CriolloError} == set(CODES)


def test_pull_failures_carry_the_words_kubelet_looks_for() -> None:
    assert refusal(errors.Unavailable("x: refused"), "PullImage").text == "RegistryUnavailable: x: refused"
    assert refusal(errors.Unavailable("x"), "PullImage").code is Code.UNKNOWN
    assert refusal(errors.Denied("policy"), "PullImage").text == "SignatureValidationFailed: policy"
    assert refusal(errors.VolumeFailed("no"), "CreateContainer").text == "ImageVolumeMountFailed: no"
    assert refusal(errors.Unavailable("x"), "RunPodSandbox").code is Code.UNAVAILABLE
    assert isinstance(error_of(Code.UNKNOWN, "RegistryUnavailable: x"), errors.Unavailable)


def test_texts_fit_a_header() -> None:
    assert len(refusal(errors.Denied("x" * 10**6), "Status").text) <= 2000
    assert bug().text != bug().text


@given(st.floats(0, 10**9))
def test_timeouts_survive_the_header(seconds: float) -> None:
    assert grpc.timeout_s(grpc.encode_timeout(seconds)) == pytest.approx(seconds, rel=1e-3, abs=1e-3)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_texts_survive_the_header(text: str) -> None:
    encoded = grpc.encode_text(text)
    assert encoded.isascii()
    assert encoded.isprintable()
    assert grpc.decode_text(encoded) == text


@given(st.binary(max_size=100) | st.binary(max_size=100).map(grpc.pack))
def test_any_body_is_one_message_or_refused(body: bytes) -> None:
    is_whole = len(body) >= 5 and body[0] == 0 and int.from_bytes(body[1:5], "big") == len(body) - 5
    if is_whole:
        assert grpc.pack(grpc.unpack(body)) == body
    else:
        with pytest.raises(Refused):
            grpc.unpack(body)


def test_a_handler_after_a_refresh_answers_when_that_is_done() -> None:
    seen: list[str] = []

    async def refresh() -> None:
        await asyncio.sleep(0)
        seen.append("refreshed")

    def listed(request: Any) -> Any:
        seen.append("listed")
        return pb.ListImagesResponse(images=[pb.Image(id="c0ffee")])

    raw = _answer(_method("ListImages", after(refresh, listed)), pb.ListImagesRequest())
    assert pb.ListImagesResponse.FromString(raw).images[0].id == "c0ffee"
    assert seen == ["refreshed", "listed"]
