"""What work did and does, step by step: stages, programs, waits. For `explain`, for traces, for metrics.

    with Trail("create container", key) as trail:     # by `aio.jobs`, for each job
        trail.stage("container storage creation")
        with waiting("look at volume source /mnt"):   # anywhere below: finds the trail of the task at hand
            ...
        step = program(argv, pid); step.end(status, stderr)

A trail belongs to the task that entered it and to the tasks which that one starts. Nothing here reads the environment of a
program or what it is told by its stdin.
"""

import contextvars
import time
from collections.abc import Hashable, Iterator, Sequence
from types import TracebackType
from typing import Final, Protocol, Self

_CAUSES: Final = 8  # of an error, one below the other
MAX_STEPS: Final = 64  # of one trail; later ones are counted
STAGE, PROGRAM, WAIT = "stage", "program", "wait"
CALL: Final = "call"  # the kind of a trail that is no job
STARTING: Final = "start"  # the stage of a job that has named none


class Step:
    """One thing that was done. Times are monotonic seconds; `ended` is 0 while it goes on. `status` is a program's."""

    __slots__ = ("argv", "ended", "kind", "name", "pid", "said", "started", "status")

    def __init__(self, kind: str, name: str, *, argv: Sequence[str] = (), pid: int = 0) -> None:
        self.kind, self.name, self.argv, self.pid = kind, name, argv, pid
        self.started, self.ended = time.monotonic(), 0.0
        self.status: int | None = None
        self.said = ""

    def end(self, status: int | None = None, said: str = "") -> None:
        """It has ended; only the first word counts."""
        if not self.ended:
            self.ended = time.monotonic()
            self.status, self.said = status, said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Trail:
    """The steps of one piece of work: a job, or a call while traces are made.

    `subjects` are the ids of whose story it is part (`telemetry.chronicle`); `span` is the tracer's. `tentative`: if it fails,
    something else is tried. `error_kinds`: the names of the error's classes and, after them, of those of its causes.
    """

    __slots__ = (
        "begun_ns", "ended", "error", "error_kinds", "kind", "left_out", "name", "parent", "span", "stage_now",
        "started", "steps", "subjects", "tentative",
    )  # fmt: skip

    def __init__(self, kind: str, key: Hashable) -> None:
        self.kind = kind
        self.name = str(key[0]) if isinstance(key, tuple) and key else str(key)  # what follows in a key may be credentials
        self.begun_ns, self.started, self.ended = time.time_ns(), time.monotonic(), 0.0
        self.steps: list[Step] = []
        self.stage_now: Step | None = None
        self.left_out = 0
        self.error = ""
        self.error_kinds: tuple[str, ...] = ()
        self.tentative = False
        self.parent: Trail | None = None
        self.span: object | None = None
        self.subjects: list[str] = []

    def stage(self, name: str) -> None:
        """The next stage begins, and the one before ends with it."""
        if self.stage_now is not None:
            self.stage_now.end()
        self.stage_now = self.add(Step(STAGE, name))

    def add(self, step: Step) -> Step:
        if len(self.steps) < MAX_STEPS and not self.ended:
            self.steps.append(step)
        else:
            self.left_out += 1
        return step

    def fail(self, error: BaseException) -> None:
        """What it ends with; the first word counts."""
        if not self.error:
            self.error_kinds = tuple(_kinds(error))
            self.error = str(error) or type(error).__name__

    def __enter__(self) -> Self:
        self.parent = _current.get()
        _current.set(self)
        for listener in _listeners:
            listener.begun(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _current.set(self.parent)
        self.ended = time.monotonic()
        if self.stage_now is not None:
            self.stage_now.end()
        if error is not None:
            self.fail(error)
        for listener in _listeners:
            listener.ended(self)
        self.parent = None  # or a chain of them would stay


def _kinds(error: BaseException) -> Iterator[str]:
    """Its classes below Exception, then those of what it was raised from."""
    cause: BaseException | None = error
    for _ in range(_CAUSES):
        if cause is None:
            return
        yield from (each.__name__ for each in type(cause).__mro__ if each not in (Exception, BaseException, object))
        cause = cause.__cause__


class Listener(Protocol):
    """Hears of every trail. Its functions return at once and raise nothing."""

    def begun(self, trail: Trail) -> None: ...
    def ended(self, trail: Trail) -> None: ...


_current: contextvars.ContextVar[Trail | None] = contextvars.ContextVar("trail", default=None)
_listeners: tuple[Listener, ...] = ()


def current() -> Trail | None:
    """The trail that the task at hand works on."""
    trail = _current.get()
    return trail if trail is not None and not trail.ended else None


def program(argv: Sequence[str], pid: int, name: str = "") -> Step:
    """A program has been started; `name` says what for. End the step when the program has ended."""
    step = Step(PROGRAM, name, argv=argv, pid=pid)
    trail = current()
    return step if trail is None else trail.add(step)


def waiting(name: str) -> Step:
    """For the block, something outside is waited for; `name` names it: the path, the peer."""
    step = Step(WAIT, name)
    trail = current()
    return step if trail is None else trail.add(step)


def listen(listener: Listener) -> None:
    global _listeners
    _listeners = (*_listeners, listener)


def leave(listener: Listener) -> None:
    """The listener hears of nothing further. May be repeated."""
    global _listeners
    _listeners = tuple(each for each in _listeners if each is not listener)
