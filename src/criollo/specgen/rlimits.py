"""Resource limits of processes: read from the configuration, held within what the daemon may set.

Source: getrlimit(2); the form `name=soft:hard` of `default_ulimits` in crio.conf(5).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from criollo.errors import Invalid
from criollo.model.pod import Record
from criollo.oci.runtime_spec import UNLIMITED, Rlimit

NAMES: Final = (
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
)
_NUMBER: Final = re.compile(r"-1|[0-9]{1,20}")


class Ulimit(Record, frozen=True, kw_only=True):
    """`name` is one of NAMES; UNLIMITED stands for no limit."""

    name: str
    soft: int
    hard: int


def parse_ulimit(text: str) -> Ulimit:
    """`nofile=1024:2048`, or `nofile=1024` for both; -1 is unlimited.

    Raises:
        Invalid: unknown name, no number, or a soft limit above the hard one.
    """
    name, equals, values = text.partition("=")
    soft_text, colon, hard_text = values.partition(":")
    if not equals:
        raise Invalid("default_ulimits", text, "name=soft:hard, such as nofile=1024:2048")
    if name not in NAMES:
        raise Invalid("default_ulimits", text, f"one of {', '.join(NAMES)}: invalid ulimit type: {name}")
    soft = _limit(soft_text, text)
    hard = _limit(hard_text, text) if colon else soft
    if soft > hard:
        raise Invalid(
            "default_ulimits",
            text,
            f"ulimit soft limit must be less than or equal to hard limit: {soft_text} > {hard_text}",
        )
    return Ulimit(name=name, soft=soft, hard=hard)


def rlimits(wanted: Sequence[Ulimit], *, ceilings: Mapping[str, int], may_raise: bool) -> tuple[tuple[Rlimit, ...], list[str]]:
    """Limits for the spec, and a note for each that had to be lowered.

    `ceilings` are the daemon's own hard limits by name; a process without CAP_SYS_RESOURCE cannot hand on more.
    """
    chosen, notes = [], []
    for limit in wanted:
        ceiling = UNLIMITED if may_raise else ceilings.get(limit.name, UNLIMITED)
        hard, soft = min(limit.hard, ceiling), min(limit.soft, ceiling)
        if hard != limit.hard:
            notes.append(
                f"ulimit {limit.name} is {hard} instead of {limit.hard}: the daemon has no CAP_SYS_RESOURCE to raise it"
            )
        chosen.append(Rlimit(type=f"RLIMIT_{limit.name.upper()}", hard=hard, soft=soft))
    return tuple(chosen), notes


def _limit(text: str, whole: str) -> int:
    if _NUMBER.fullmatch(text) is None or int(text) > UNLIMITED:
        raise Invalid("default_ulimits", whole, "name=soft:hard with whole numbers, or -1 for unlimited")
    return UNLIMITED if text == "-1" else int(text)
