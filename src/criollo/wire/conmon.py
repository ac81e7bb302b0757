"""What conmon and its clients say: the sync pipe's answers, the control fifo's lines, the exit file's number.

Sync pipe, conmon to us, one JSON object per line: `{"pid": N}` for a created container; `{"pid": -1, "message": "…"}`
when the runtime failed, with what it wrote to stderr. For an exec the key is `exit_code` (old interface) or `data`.
The message is the runtime's raw stderr with some characters escaped: it need not be valid UTF-8 nor valid JSON text.

Nothing here trusts its input: sizes are compared before anything is kept, numbers have a range, and what does not
parse is `Garbled`, with a reason, never another exception.
Source: conmon, src/parent_pipe_fd.c, src/ctrl.c, src/ctr_exit.c (2.1.6).
"""

import re
from typing import Final, NamedTuple

import msgspec

MAX_ANSWER: Final = 1 << 16  # conmon reads 8 KiB of stderr; escaping makes at most six of each byte
MAX_EXIT_FILE: Final = 16
MAX_PID: Final = (1 << 22) - 1  # PID_MAX_LIMIT, linux/threads.h
_EXIT_CODE: Final = re.compile(rb"[0-9]{1,3}")
_KEYS: Final = ("pid", "data", "exit_code")
_CONTROL: Final = {code: " " for code in range(0x20)}


class Garbled(ValueError):
    """The other side said something that the protocol does not have."""


class SyncAnswer(NamedTuple):
    """One line of the sync pipe: the number under its key, and the runtime's words (empty when all is well)."""

    key: str
    value: int
    message: str = ""


class SyncPipe:
    """Collects the bytes of a sync pipe until one answer is whole; may be fed in any pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive(self, data: bytes) -> SyncAnswer | None:
        """The answer as soon as its line is complete; what follows the first line is not looked at.

        Raises:
            Garbled: more than `MAX_ANSWER` bytes without an end of line, or no answer of conmon's.
        """
        line, newline, _ = data.partition(b"\n")
        if len(self._buffer) + len(line) > MAX_ANSWER:
            raise Garbled(f"answer longer than {MAX_ANSWER} bytes")
        self._buffer += line
        return parse_answer(bytes(self._buffer)) if newline else None

    @property
    def pending(self) -> bytes:
        """The bytes of an unfinished line."""
        return bytes(self._buffer)


def parse_answer(line: bytes) -> SyncAnswer:
    """One line of the sync pipe, without its newline.

    Raises:
        Garbled: no JSON object with exactly one of the known keys, or its number is out of range.
    """
    if len(line) > MAX_ANSWER:
        raise Garbled(f"answer longer than {MAX_ANSWER} bytes")
    text = line.decode("utf-8", "replace").translate(_CONTROL)
    try:
        found = msgspec.json.decode(text, type=dict[str, int | str])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Garbled(f"no answer of conmon: {error}") from None
    keys = [key for key in _KEYS if key in found]
    if len(keys) != 1:
        raise Garbled("answer without a pid")
    value, message = found[keys[0]], found.get("message", "")
    if not isinstance(value, int) or not -(1 << 31) <= value < 1 << 31:
        raise Garbled(f"answer with {keys[0]} out of range")
    return SyncAnswer(keys[0], value, message if isinstance(message, str) else "")


def created_pid(answer: SyncAnswer) -> int:
    """The pid of a created container's first process; -1 says that the runtime failed.

    Raises:
        Garbled: an answer to another question, or a number that is no container's pid.
    """
    if answer.key != "pid" or (answer.value != -1 and not 2 <= answer.value <= MAX_PID):
        raise Garbled(f"no pid of a container: {answer.key} {answer.value}")
    return answer.value


def parse_exit_file(content: bytes) -> int:
    """The exit code of a container, 0-255; 128+n after signal n.

    Raises:
        Garbled: anything but a decimal number in range. Conmon's own "-1" (it never learned the status) too.
    """
    stripped = content.strip(b" \n")
    if not _EXIT_CODE.fullmatch(stripped) or (code := int(stripped)) > 255:
        raise Garbled(f"exit file holds {content[:MAX_EXIT_FILE]!r}")
    return code


def format_resize(rows: int, columns: int) -> bytes:
    """A control line that sets the terminal's size; each is held to 0-65535 (struct winsize)."""
    return b"1 %d %d\n" % (_size(rows), _size(columns))


def format_reopen() -> bytes:
    """A control line that makes conmon close its log and open the path again."""
    return b"2 0 0\n"


def _size(value: int) -> int:
    return min(max(value, 0), 0xFFFF)
