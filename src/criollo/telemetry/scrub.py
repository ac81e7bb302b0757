"""Secrets out of texts that programs wrote: user-info and queries of URLs, tokens, passwords. A net below the rules: our own
messages hold none, and environments and stdin of programs are never looked at."""

import re
from typing import Final

_HIDDEN: Final = "***"
_PATTERNS: Final = (
    (re.compile(r"://[^/\s@]{1,300}@"), f"://{_HIDDEN}@"),
    (re.compile(r"(://[^\s?#]{1,300})\?[^\s\"']{1,2000}"), rf"\1?{_HIDDEN}"),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,4000}", re.IGNORECASE), rf"\1 {_HIDDEN}"),
    (
        re.compile(
            r"""((?:password|passwd|secret|token|api[_-]?key|access[_-]?key|credential|authorization)"""
            r"""[a-z0-9_-]{0,40}["']?\s{0,3}[:=]\s{0,3}["']?)[^\s"',;}]{1,4000}""",
            re.IGNORECASE,
        ),
        rf"\1{_HIDDEN}",
    ),
    (re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.{0,10000}", re.DOTALL), _HIDDEN),
)


_SUSPECT: Final = re.compile(r"[=:\s]")  # none of the above is without


def scrubbed(text: str) -> str:
    """The text without what looks like a secret."""
    if not _SUSPECT.search(text):
        return text
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text
