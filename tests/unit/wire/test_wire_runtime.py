"""What runtimes print."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.wire import runtime
from criollo.wire.conmon import Garbled
from criollo.wire.runtime import State, Status, Version, has_known_words

CRUN = b"crun version 1.8.1\ncommit: f8a096be060b22ccd3d5f3ebe44108517fbf6c30\nspec: 1.0.0\n"
RUNC = b"runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\n"


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("error opening file `x`: No such file", "error opening file `x`: No such file"),
        ('time="2026-11-21T10:00:00Z" level=error msg="exec: \\"x\\": not found"', 'exec: "x": not found'),
        ('time="t" level=warning msg="old"\ntime="t" level=error msg=bad', "bad"),
        ('{"msg":"one","level":"error"}\n{"msg":"two","level":"error","time":"t"}', "two"),
        ('{"msg":"fine","level":"info"}', ""),
        ("plain\n{broken", "plain\n{broken"),
        ("", ""),
    ],
)
def test_message_without_its_wrapping(output: str, message: str) -> None:
    assert runtime.readable(output) == message


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b'{"level":"debug","msg":"process exited","pid":4711,"status":6,"time":"2026-11-21T10:00:00Z"}', 6),
        (b'{"level":"debug","msg":"process exited","pid":4711,"status":137}', 137),
        (b'{"level":"debug","msg":"process exited","pid":4711,"status":0}', 0),
        (b'{"level":"debug","msg":"process exited","pid":4711,"status":256}', None),
        (b'{"level":"debug","msg":"process exited","pid":4711,"status":-1}', None),
        (b'{"level":"debug","msg":"process exited","status":0}', None),
        (b'{"level":"debug","msg":"sent \\"process exited\\"","pid":4711,"status":0}', None),
        (b'{"level":"debug","msg":"process exited","pid":', None),
        (b'time="t" level=debug msg="process exited" pid=4711 status=0', None),
        (b"", None),
    ],
)
def test_exit_that_runc_tells_of(line: bytes, status: int | None) -> None:
    assert runtime.exit_told(line) == status


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_any_line_tells_of_an_exit_or_does_not(before: bytes, after: bytes) -> None:
    status = runtime.exit_told(before + b'"process exited"' + after)
    assert status is None or 0 <= status <= 255


@given(st.binary(max_size=300))
def test_any_error_output_is_readable(output: bytes) -> None:
    runtime.readable(output)


@pytest.mark.parametrize(
    ("output", "version"),
    [
        (CRUN, Version("crun", (1, 8, 1), "crun version 1.8.1")),
        (RUNC, Version("runc", (1, 1, 5), "runc version 1.1.5+ds1")),
        (b"crun version 1.28\n", Version("crun", (1, 28), "crun version 1.28")),
        (b"runsc version release-20221219.0\n", Version("runsc", (), "runsc version release-20221219.0")),
        (b"", Version("", (), "")),
    ],
)
def test_versions(output: bytes, version: Version) -> None:
    assert runtime.parse_version(output) == version


@pytest.mark.parametrize(
    ("name", "numbers", "bad"),
    [
        ("crun", (1, 8, 1), True),
        ("crun", (1, 28), False),
        ("crun", (1, 28, 1), False),
        ("runc", (1, 1, 5), True),
        ("runc", (1, 3, 5), True),
        ("runc", (1, 3, 6), False),
        ("runc", (1, 4, 2), True),
        ("runc", (1, 4, 3), False),
        ("runc", (2, 0, 0), False),
        ("kata", (1, 0, 0), False),
        ("runc", (), False),
    ],
)
def test_versions_with_published_holes(name: str, numbers: tuple[int, ...], bad: bool) -> None:
    assert bool(runtime.known_bad(Version(name, numbers, ""))) is bad


def test_state() -> None:
    assert runtime.parse_state(b'{"id":"x","status":"running","pid":77,"more":[1]}', "x") == State(Status.RUNNING, 77)


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"not json",
        b"\xff",
        b'{"id":"y","status":"running","pid":77}',
        b'{"id":"x","status":"dancing","pid":77}',
        b'{"id":"x","status":"running","pid":-1}',
        b'{"id":"x","status":"running","pid":1}',
        b'{"id":"x","status":"running","pid":1099511627776}',
        b"[" * 100000,
        b'{"id":"x","status":"running","pad":"' + b"x" * (10 << 20) + b'"}',
    ],
)
def test_states_that_are_none(output: bytes) -> None:
    with pytest.raises(Garbled):
        runtime.parse_state(output, "x")


@pytest.mark.parametrize("output", [b"", b"[]", b"[" * 100000, b" " * (2 << 20)])
def test_features_that_are_none(output: bytes) -> None:
    with pytest.raises(Garbled):
        runtime.parse_features(output)


@pytest.mark.parametrize(
    ("name", "numbers", "features", "expected"),
    [
        ("runc", (1, 1, 5), {"mountOptions": ["ro", "rro"], "linux": {"namespaces": []}}, (True, False)),
        (
            "runc",
            (1, 2, 0),
            {"mountOptions": ["rro"], "linux": {"mountExtensions": {"idmap": {"enabled": True}}}},
            (True, True),
        ),
        ("crun", (1, 21), {"mountOptions": [], "linux": {"mountExtensions": {"idmap": {"enabled": False}}}}, (False, False)),
        ("crun", (1, 21), {"linux": None, "mountOptions": None, "hooks": []}, (False, False)),
        ("crun", (1, 21), {"linux": {"mountExtensions": {}}}, (False, False)),
        ("crun", (1, 21), {"mountOptions": "rro"}, (False, False)),
        ("crun", (1, 21), {"mountOptions": ["rro"], "linux": 7}, (False, False)),
        ("crun", (1, 8, 1), {}, (True, False)),
        ("crun", (1, 3), {}, (False, False)),
        ("runc", (1, 0, 3), {}, (False, False)),
        ("runsc", (), {}, (False, False)),
    ],
)
def test_what_runtimes_can_do_with_mounts(
    name: str, numbers: tuple[int, ...], features: dict[str, object], expected: tuple[bool, bool]
) -> None:
    assert runtime.mounting(Version(name, numbers, ""), features) == expected


@pytest.mark.parametrize(
    ("name", "numbers", "repeated"),
    [
        ("runc", (1, 1, 15), True),
        ("runc", (1, 2), False),
        ("runc", (1, 3, 6), False),
        ("crun", (1, 28), True),
        ("youki", (0, 5), True),
        ("runc", (), True),
    ],
)
def test_who_wants_the_mappings_of_a_namespace_it_joins(name: str, numbers: tuple[int, ...], repeated: bool) -> None:
    assert runtime.repeats_mappings(Version(name, numbers, "")) is repeated


@pytest.mark.parametrize(
    ("name", "numbers", "slow"),
    [("crun", (1, 8, 1), True), ("crun", (1, 14), False), ("crun", (), False), ("runc", (1, 1, 5), False)],
)
def test_who_is_given_a_seccomp_program(name: str, numbers: tuple[int, ...], slow: bool) -> None:
    assert runtime.precompiles_seccomp(Version(name, numbers, "")) is slow


@pytest.mark.parametrize(
    ("features", "answer"),
    [
        ({"linux": {"netDevices": {"enabled": True}}}, True),
        ({"linux": {"netDevices": {"enabled": "yes"}}}, False),
        ({"linux": {"netDevices": []}}, False),
        ({"linux": None}, False),
        ({}, False),
    ],
)
def test_interfaces_are_moved_by_who_says_so(features: dict[str, object], answer: bool) -> None:
    assert runtime.moves_interfaces(features) is answer


def test_annotations_that_a_runtime_calls_unsafe_are_names() -> None:
    assert runtime.unsafe_annotations({"potentiallyUnsafeConfigAnnotations": ["a.b.", "c", "", 5]}) == ("a.b.", "c")
    assert runtime.unsafe_annotations({"potentiallyUnsafeConfigAnnotations": "a"}) == ()
    assert runtime.unsafe_annotations({}) == ()


@pytest.mark.parametrize(
    ("name", "features", "known"),
    [
        ("crun", {}, True),
        ("runc", {}, True),
        ("runsc", {}, False),
        ("", {}, False),
        ("youki", {"potentiallyUnsafeConfigAnnotations": []}, True),
        ("youki", {"potentiallyUnsafeConfigAnnotations": "x"}, False),
    ],
)
def test_the_words_of_a_runtime_are_known_where_it_tells_them(name: str, features: dict[str, object], known: bool) -> None:
    assert has_known_words(Version(name, (), ""), features) is known
