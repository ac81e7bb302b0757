"""What a runtime says of an exec while it runs and afterwards."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from criollo.runtimes.journal import Journal

EXITED = b'{"level":"debug","msg":"process exited","pid":7,"status":%d}\n'
ERROR = b'{"level":"error","msg":"no such container"}\n'


@pytest.fixture(params=[True, False])
def journal(request: pytest.FixtureRequest) -> Iterator[Journal]:
    made = Journal(is_followed=request.param)
    yield made
    made.close()


@pytest.fixture
def followed() -> Iterator[Journal]:
    made = Journal(is_followed=True)
    yield made
    made.close()


def write(journal: Journal, octets: bytes) -> None:
    """As a runtime does: by the path that it is given."""
    with open(journal.options[-2].partition("=")[2], "ab") as file:
        file.write(octets)


def told(journal: Journal, is_idle: Callable[[], bool] = lambda: True) -> int:
    async def main() -> int:
        async with asyncio.timeout(60):
            return await journal.exit_told(is_idle)

    return asyncio.run(main())


def test_last_error_is_its_words(journal: Journal) -> None:
    assert journal.words() == ""
    write(journal, b'{"level":"error","msg":"first"}\n' + ERROR)
    assert journal.words() == "no such container"


def test_words_hold_no_secret(journal: Journal, followed: Journal) -> None:
    for each in (journal, followed):
        write(each, b'{"level":"error","msg":"cannot open https://user:hush@store/x: password=hush2"}\n')
        assert "cannot open" in each.words()
        assert "hush" not in each.words()


def test_talk_of_a_followed_one_is_no_failure(followed: Journal) -> None:
    write(followed, b'{"level":"debug","msg":"child process in init()"}\n' * 400)
    assert followed.words() == ""


def test_exit_is_told_once_it_is_written_and_in_whatever_pieces(followed: Journal) -> None:
    async def main() -> int:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            waiting = group.create_task(followed.exit_told(lambda: True))
            for octet in EXITED % 6:
                assert not waiting.done()
                write(followed, bytes((octet,)))
                await asyncio.sleep(0)
        return waiting.result()

    assert asyncio.run(main()) == 6


def test_exit_of_another_child_does_not_count(followed: Journal) -> None:
    living = iter([False, True])
    write(followed, EXITED % 1 + b'{"level":"debug","msg":"x"}\n' + EXITED % 2)
    assert told(followed, lambda: next(living)) == 2


def test_words_before_the_exit_are_kept(followed: Journal) -> None:
    write(followed, ERROR + EXITED % 1)
    told(followed)
    assert followed.words() == "no such container"


def test_endless_talk_is_not_collected(followed: Journal) -> None:
    talk = [b"x" * 10_000 + b"\n"] * 50 + [EXITED % 3]
    talker = threading.Thread(target=lambda: [write(followed, line) for line in talk])
    talker.start()
    assert told(followed) == 3
    talker.join()
    assert len(followed.words()) <= 1 << 16


def test_closing_may_be_repeated(journal: Journal) -> None:
    journal.close()
    journal.close()
