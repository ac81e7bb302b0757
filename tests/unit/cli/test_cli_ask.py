"""cli.ask: the daemon's HTTP face from a verb: answers, refusals, nobody there, someone who says nonsense."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from criollo.cli.ask import answers, ask
from criollo.errors import CriolloError, Unavailable


@contextmanager
def serving(path: Path, reply: bytes) -> Iterator[list[bytes]]:
    """Somebody who takes one request and says this."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as connection:
                asked.append(connection.recv(65536))
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join()


def test_a_good_answer_is_its_body(tmp_path: Path) -> None:
    with serving(tmp_path / "s", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok") as asked:
        assert ask(tmp_path / "s", "POST", "/check", {"quick": "1"}) == b"ok"
    assert asked[0].startswith(b"POST /check?quick=1 HTTP/1.1\r\n")


def test_a_refusal_is_told_in_the_daemons_words(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "s", b"HTTP/1.1 400 Bad\r\ncontent-length: 12\r\n\r\nno such\x1b[0m\n"),
        pytest.raises(CriolloError) as told,
    ):
        ask(tmp_path / "s", "GET", "/x", {})
    assert str(told.value) == "no such\\x1b[0m"


@pytest.mark.parametrize("reply", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort"])
def test_an_answer_that_is_none_is_unavailable(tmp_path: Path, reply: bytes) -> None:
    with serving(tmp_path / "s", reply), pytest.raises(Unavailable, match="connection ended"):
        ask(tmp_path / "s", "GET", "/x", {})


def test_nobody_there_is_no_daemon(tmp_path: Path) -> None:
    assert not answers(tmp_path / "missing")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    assert not answers(tmp_path / "s")


def test_a_path_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        answers(tmp_path / ("x" * 200))
