"""What `crio explain` is told, as values for JSON; and how a trail becomes one: bounded, without secrets."""

from collections.abc import Iterator
from typing import Final

import msgspec

from criollo.errors import printable
from criollo.telemetry.scrub import scrubbed
from criollo.telemetry.trail import STAGE, Step, Trail

_TEXT: Final = 2000
_SHORT: Final = 160
_LOOK: Final = 16 << 10  # characters that are searched for secrets: a cut may go through none that begins before it


class StepTold(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A step; `seconds` is None while it goes on."""

    kind: str
    name: str
    after_s: float
    seconds: float | None = None
    pid: int = 0
    argv: tuple[str, ...] = ()
    status: int | None = None
    said: str = ""


class WorkTold(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A job; `seconds` is None while it goes on."""

    what: str
    begun_ns: int
    seconds: float | None = None
    error: str = ""
    left_out: int = 0
    steps: tuple[StepTold, ...] = ()


class Move(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True):
    """A change of state."""

    at_ns: int
    state: str
    text: str = ""


class Waiting(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is waited for now, by which job, at which stage."""

    work: str
    stage: str
    step: StepTold


class Mentioned(msgspec.Struct, frozen=True, kw_only=True):
    """Another one that belongs to it, or that the same words mean."""

    kind: str
    id: str
    title: str
    state: str


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What happened to a pod or container. `last_words`: by program, what it wrote to stderr last."""

    kind: str
    id: str
    name: str
    title: str
    pod_id: str = ""
    state: str = ""
    trouble: str = ""
    moves: tuple[Move, ...] = ()
    works: tuple[WorkTold, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    last_words: dict[str, str] = {}
    containers: tuple[Mentioned, ...] = ()
    others: tuple[Mentioned, ...] = ()


def bounded(text: str, limit: int = _TEXT) -> str:
    """Text from elsewhere, as it may be kept and shown."""
    if not text:
        return ""
    clean = scrubbed(text[-max(2 * limit, _LOOK) :])
    return (clean if clean.isprintable() else printable(clean))[-limit:]


def tell(trail: Trail) -> WorkTold:
    """A trail as it may be kept and shown."""
    return WorkTold(
        what=trail.kind,
        begun_ns=trail.begun_ns,
        seconds=round(trail.ended - trail.started, 6) if trail.ended else None,
        error=bounded(trail.error),
        left_out=trail.left_out,
        steps=tuple(_steps(trail)),
    )


def _steps(trail: Trail) -> Iterator[StepTold]:
    for step in trail.steps:
        is_well = bool(step.ended) and not step.status
        yield StepTold(
            kind=step.kind,
            name=step.name if step.kind is STAGE else bounded(step.name, _SHORT),
            after_s=round(step.started - trail.started, 6),
            seconds=round(step.ended - step.started, 6) if step.ended else None,
            pid=step.pid,
            argv=_shown(step, is_well=is_well),
            status=step.status,
            said=bounded(step.said),
        )


def _shown(step: Step, *, is_well: bool) -> tuple[str, ...]:
    """The arguments; of what went well only what tells which program it was."""
    words = step.argv[:2] if is_well else step.argv[:64]
    return tuple(bounded(str(word), 400) for word in words)
