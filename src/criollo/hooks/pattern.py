"""Patterns of hook files: regular expressions of Go, which Python reads a little differently.

`$` and `\\z` are the end of the text, never the place before a last line break; classes are ASCII. Python's matcher goes back
where Go's does not, so what a tenant writes could keep it busy for ever: repetitions within repetitions are refused, and a
text longer than `LIMIT` matches only what matches everything. Source: Go, regexp/syntax.
"""

import re
from typing import Final, NamedTuple

from criollo.errors import Invalid

LIMIT: Final = 4096
_POSIX: Final = {
    "[:alnum:]": "0-9A-Za-z",
    "[:alpha:]": "A-Za-z",
    "[:digit:]": "0-9",
    "[:lower:]": "a-z",
    "[:space:]": r"\t\n\v\f\r ",
    "[:upper:]": "A-Z",
    "[:word:]": r"0-9A-Za-z_",
    "[:xdigit:]": "0-9A-Fa-f",
}
_LENGTH: Final = 1000
_ANYTHING: Final = re.compile(r"\A\.\*(?![?+*{])")  # in front it finds nothing more, and costs a search from each place
_EVERYTHING: Final = frozenset({"", ".*", "^.*$", "^.*", ".*$"})


class Pattern(NamedTuple):
    """A pattern that is looked for anywhere in a text; `compiled` is None where everything matches."""

    compiled: re.Pattern[str] | None

    def matches(self, text: str) -> bool:
        if self.compiled is None:
            return True
        return len(text) <= LIMIT and self.compiled.search(text) is not None


def parse_pattern(text: str, field: str) -> Pattern:
    """A pattern of Go.

    Raises:
        Invalid: no regular expression, or one that could take for ever.
    """
    if text in _EVERYTHING:
        return Pattern(None)
    if len(text) > _LENGTH:
        raise Invalid(field, f"{len(text)} characters", f"a regular expression of at most {_LENGTH}")
    try:
        return Pattern(re.compile(_translated(_ANYTHING.sub("", text), field), re.ASCII))
    except (re.error, RecursionError, OverflowError) as error:
        raise Invalid(field, text, f"a regular expression ({error})") from None


def _translated(text: str, field: str) -> str:
    """The same for Python; a group that repeats what repeats is refused."""
    found: list[str] = []
    repeating = [False]  # for each open group: whether something in it repeats without end
    multiline = bool(re.match(r"\(\?[a-z]*m", text))
    at = 0
    while at < len(text):
        word = _next(text, at)
        at += len(word)
        if word == "(":
            repeating.append(False)
        elif word == ")" and len(repeating) > 1:
            inner = repeating.pop()
            if inner and text[at : at + 1] in ("*", "+", "{"):
                raise Invalid(field, text, "a regular expression without repetitions of repetitions")
            repeating[-1] = repeating[-1] or inner
        elif word in ("*", "+", "{"):
            repeating[-1] = True
        if word.startswith("["):
            word = _class(word, field)
        found.append(r"\Z" if word == r"\z" or (word == "$" and not multiline) else word)
    return "".join(found)


def _class(word: str, field: str) -> str:
    """A class of characters; what Python would read as sets of sets is escaped or refused."""
    inner = word[1:]
    for name, characters in _POSIX.items():
        inner = inner.replace(name, characters)
    if "[:" in inner or any(sign * 2 in inner for sign in "-&~|"):
        raise Invalid(field, word, "a regular expression of Go whose classes have no doubled signs")
    return "[" + re.sub(r"(?<!\\)\[", r"\\[", inner)


def _next(text: str, at: int) -> str:
    """The next escape, class or character."""
    if text[at] == "\\":
        return text[at : at + 2]
    if text[at] != "[":
        return text[at]
    end = at + 1
    if text[end : end + 1] == "^":
        end += 1
    if text[end : end + 1] == "]":
        end += 1
    while end < len(text) and text[end] != "]":
        posix = text.find(":]", end) if text.startswith("[:", end) else -1
        end = posix + 2 if posix >= 0 else end + (2 if text[end] == "\\" else 1)
    return text[at : end + 1]
