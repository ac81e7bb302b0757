"""The small language of `--format`: text with `{{…}}` in it, after Go's templates as docker and podman use them.

    {{.Repository}}:{{.Tag}}    a field
    {{.status.image.image}}     a field of a field; {{.}} is the whole
    {{json .Labels}}            as JSON; what is no text, number or boolean is JSON anyway
    {{len .RepoTags}}  {{upper .ID}}  {{lower .ID}}  {{join .RepoTags ","}}
    {{"{{"}}  \\t  \\n            themselves

No conditions, loops, pipes or variables. A field that is not there is an error that names those that are.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from criollo.errors import Invalid, printable

_MAX: Final = 64 << 10
_ACTION: Final = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_WORD: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_PATH: Final = re.compile(r"\.(?:[A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*)*)?")
_ESCAPES: Final = {"\\t": "\t", "\\n": "\n", "\\\\": "\\"}
_ESCAPE: Final = re.compile(r"\\[tn\\]")
_SHOWN: Final = 30  # names of fields in an error


class _Part(NamedTuple):
    """Text, or a function of a field with its further words."""

    text: str = ""
    path: tuple[str, ...] | None = None
    function: str = ""
    words: tuple[str, ...] = ()


class Template:
    """A parsed template; `fill` gives the text for one object."""

    def __init__(self, text: str) -> None:
        """Raises Invalid: an action that is none of those above."""
        if len(text) > _MAX:
            raise Invalid("--format", f"{len(text)} characters", f"at most {_MAX}")
        self._parts: list[_Part] = []
        at = 0
        for found in _ACTION.finditer(text):
            self._parts += [_Part(_unescaped(text[at : found.start()])), _action(found[1])]
            at = found.end()
        rest = text[at:]
        if "{{" in rest:
            raise Invalid("--format", rest[:80], "}} after {{")
        self._parts.append(_Part(_unescaped(rest)))

    @property
    def paths(self) -> tuple[str, ...]:
        """The fields that it names, for heads of columns and for what need not be asked for."""
        return tuple(".".join(part.path) for part in self._parts if part.path is not None)

    def heads(self) -> str:
        """Itself with the names of its fields in their places."""
        return "".join(part.text if part.path is None else _head(part.path) for part in self._parts)

    def fill(self, value: Mapping[str, Any]) -> str:
        """The text for an object; control characters of its values are escaped.

        Raises:
            Invalid: it has no such field.
        """
        return "".join(part.text if part.path is None else _filled(part, value) for part in self._parts)


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPES[found[0]], text)


def _action(text: str) -> _Part:
    words = [(quoted, plain) for quoted, plain in _WORD.findall(text)]
    if len(words) == 1 and not words[0][1]:
        return _Part(_unescaped(words[0][0]))
    plain = [word for _, word in words]
    function = plain[0] if plain and plain[0] in _FUNCTIONS else ""
    rest = words[1:] if function else words
    wants = 2 if function == "join" else 1
    if len(rest) != wants or not _PATH.fullmatch(rest[0][1]) or any(word for _, word in rest[1:]):
        raise Invalid("--format", "{{" + text[:80] + "}}", f"{{{{.Field}}}}, or {', '.join(_FUNCTIONS)} before it")
    path = tuple(filter(None, rest[0][1].split(".")))
    return _Part(path=path, function=function, words=tuple(_unescaped(quoted) for quoted, _ in rest[1:]))


def _filled(part: _Part, value: Any) -> str:
    assert part.path is not None
    for depth, name in enumerate(part.path):
        if not isinstance(value, Mapping) or name not in value:
            there = ", ".join(sorted(map(str, value))[:_SHOWN]) if isinstance(value, Mapping) else "none below it"
            raise Invalid("--format", "." + ".".join(part.path[: depth + 1]), f"a field that is there: {printable(there)}")
        value = value[name]
    return _FUNCTIONS[part.function](value, *part.words) if part.function else _text(value)


def _text(value: Any) -> str:
    if value is None:
        return "<none>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return printable(str(value)) if isinstance(value, str | int | float) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True).replace("\x7f", "\\u007f")


def _len(value: Any) -> str:
    if not isinstance(value, Sequence | Mapping):
        raise Invalid("--format", "len", "a text, a list or an object")
    return str(len(value))


def _join(value: Any, between: str) -> str:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise Invalid("--format", "join", "a list")
    return between.join(_text(each) for each in value)


_FUNCTIONS: Final[dict[str, Callable[..., str]]] = {
    "json": _json,
    "len": _len,
    "join": _join,
    "upper": lambda value: _text(value).upper(),
    "lower": lambda value: _text(value).lower(),
}


def _head(path: tuple[str, ...]) -> str:
    """`RepoTags` as `REPO TAGS`, `ID` as it is."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", path[-1]).upper() if path else ""
