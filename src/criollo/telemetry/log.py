"""Structured log lines: a stable message, facts as fields.

    log = get_logger(__name__)
    log.info("container exited", container=container_id, code=137)

A line is `time level message key=value …` (text) or one JSON object. Ids of the request at hand come from the context
variable `context`, so that a driver need not know them. What is below the level costs one comparison.
"""

import contextvars
import functools
import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Mapping
from typing import IO, Final

LEVELS: Final = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}

context: contextvars.ContextVar[Mapping[str, object] | None] = contextvars.ContextVar("log_context", default=None)


class Logger:
    """A name and the root's level; messages are literals, facts are keywords."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    @property
    def is_debug(self) -> bool:
        return self._logger.isEnabledFor(logging.DEBUG)

    def debug(self, message: str, /, **fields: object) -> None:
        self._emit(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        self._emit(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        self._emit(logging.WARNING, message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        self._emit(logging.ERROR, message, fields)

    def exception(self, message: str, /, **fields: object) -> None:
        """`error` with the traceback of the exception at hand: for our own bugs only."""
        self._emit(logging.ERROR, message, {**fields, "traceback": traceback.format_exc()})

    def _emit(self, level: int, message: str, fields: Mapping[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            # Made here: Logger.log looks for the caller's line and asks for process, thread and task, which nobody prints.
            record = logging.LogRecord(self._logger.name, level, "", 0, message, None, None)
            record.fields = {**(context.get() or {}), **fields}
            self._logger.handle(record)


def get_logger(name: str) -> Logger:
    return Logger(name)


def set_up(level: str, *, form: str = "text", stream: IO[str] | None = None) -> None:
    """Send all log lines of this process to `stream` (stderr); `form` is "text" or "json"."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonLine() if form == "json" else _TextLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    set_level(level)


def set_level(level: str) -> None:
    """Tell lines from this level on."""
    logging.getLogger("criollo").setLevel(LEVELS[level])


def set_filter(pattern: str) -> None:
    """Tell only lines whose message and fields, as text, hold a match of the regular expression; empty: all.

    Raises re.error.
    """
    matches = re.compile(pattern).search
    for handler in logging.getLogger().handlers:
        handler.filters[:] = [lambda record: matches(_words(record)) is not None] if pattern else []


def plain(value: object) -> str:
    """A field's text: control and bidirectional characters escaped, quoted where it holds spaces."""
    text = str(value)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or '"' in text or "=" in text else text


def _stamp(created: float) -> str:
    return f"{_second(int(created))}.{int(created % 1 * 1e6):06d}Z"


@functools.lru_cache(maxsize=1)
def _second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


def _words(record: logging.LogRecord) -> str:
    """A line without its time and level."""
    fields: Mapping[str, object] = getattr(record, "fields", {})
    words = [plain(record.getMessage()), *(f"{key}={plain(value)}" for key, value in fields.items() if key != "traceback")]
    return " ".join(words)


class _TextLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, object] = getattr(record, "fields", {})
        line = f"{_stamp(record.created)} {record.levelname.lower()} {_words(record)}"
        return f"{line}\n{fields['traceback']}" if "traceback" in fields else line


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, object] = getattr(record, "fields", {})
        document = {"time": _stamp(record.created), "level": record.levelname.lower(), "msg": record.getMessage()}
        document |= {key: str(value) for key, value in fields.items() if key not in document}
        line = json.dumps(document, ensure_ascii=False)
        return line if line.isprintable() else json.dumps(document)  # JSON lets bidirectional characters pass
