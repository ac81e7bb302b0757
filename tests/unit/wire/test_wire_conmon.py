"""The sync pipe's answers, exit files, control lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.wire import conmon
from criollo.wire.conmon import Garbled, SyncAnswer, SyncPipe


def test_pid_of_a_created_container() -> None:
    assert SyncPipe().receive(b'{"pid": 4711}\n') == SyncAnswer("pid", 4711)


def test_failure_with_the_runtimes_words() -> None:
    line = b'{"pid": -1, "message": "error \\"x\\"\\n\\u001b[31m\xff"}\n'
    assert SyncPipe().receive(line) == SyncAnswer("pid", -1, 'error "x"\n\x1b[31m\ufffd')


def test_raw_control_character_that_conmon_forgets_to_escape() -> None:
    assert conmon.parse_answer(b'{"pid": -1, "message": "a\x1fb"}').message == "a b"


def test_second_answer_is_not_looked_at() -> None:
    assert SyncPipe().receive(b'{"pid": 2}\n{"pid": 3}\n') == SyncAnswer("pid", 2)


@given(st.lists(st.integers(0, 13), max_size=3))
def test_any_split_gives_the_same_answer(cuts: list[int]) -> None:
    line, pipe, answers, start = b'{"pid": 4711}\n', SyncPipe(), [], 0
    for cut in [*sorted(cuts), len(line)]:
        answers.append(pipe.receive(line[start:cut]))
        start = cut
    assert answers[-1] == SyncAnswer("pid", 4711)
    assert not any(answers[:-1])


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"pid": "2"}',
        b'{"pid": 2.5}',
        b'{"pid": 1099511627776}',
        b'{"pid": 2, "data": 3}',
        b'{"message": "x"}',
        b'{"pid": NaN}',
        b'{"pid": ' + b"[" * 30000,
        b'{"pid": 2, "message": "' + b"x" * (1 << 20) + b'"}',
    ],
)
def test_other_lines_are_garbled(line: bytes) -> None:
    with pytest.raises(Garbled):
        conmon.parse_answer(line)


def test_endless_line_is_refused_before_it_is_kept() -> None:
    pipe = SyncPipe()
    for _ in range(conmon.MAX_ANSWER // 4096):
        pipe.receive(b"x" * 4096)
    with pytest.raises(Garbled):
        pipe.receive(b"x")
    assert len(pipe.pending) <= conmon.MAX_ANSWER


@given(st.binary(max_size=200))
def test_any_line_is_an_answer_or_garbled(line: bytes) -> None:
    try:
        answer = conmon.parse_answer(line)
        conmon.created_pid(answer)
    except Garbled:
        return
    assert answer.value == -1 or answer.value >= 2


@pytest.mark.parametrize("value", [-2, 0, 1, conmon.MAX_PID + 1])
def test_numbers_that_are_no_containers_pid(value: int) -> None:
    with pytest.raises(Garbled):
        conmon.created_pid(SyncAnswer("pid", value))


@pytest.mark.parametrize(("content", "code"), [(b"0", 0), (b"137", 137), (b"255\n", 255), (b"007", 7)])
def test_exit_codes(content: bytes, code: int) -> None:
    assert conmon.parse_exit_file(content) == code


@pytest.mark.parametrize("content", [b"", b"-1", b"256", b"300", b"1 2", b"0x1", "٣".encode(), b"1_0", b"\0", b"9" * 16])
def test_exit_files_that_are_none(content: bytes) -> None:
    with pytest.raises(Garbled):
        conmon.parse_exit_file(content)


def test_control_lines_are_held_to_the_terminals_range() -> None:
    assert conmon.format_resize(24, 80) == b"1 24 80\n"
    assert conmon.format_resize(-1, 1 << 40) == b"1 0 65535\n"
    assert conmon.format_reopen() == b"2 0 0\n"
