"""A look into the daemon over HTTP: stacks, memory, a profile. Loaded when somebody asks for it.

    /debug/goroutines, /debug/heap     always, on the daemon's socket, which is root's
    /debug/pprof/…                     on that socket with `enable_profile_unix_socket`, at a port with `profile`

The answers are text, not what `go tool pprof` reads: there is no Go here. The profile is in the folded form of flame graphs.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from criollo.aio import threads
from criollo.aio.background import Background
from criollo.aio.http_server import Reply, Request, Route, text
from criollo.errors import Exhausted, Invalid, NotFound
from criollo.telemetry.sampling import Sampler
from criollo.telemetry.stacks import heap_text, stacks_text

_SECONDS: Final = 30
_MOST_SECONDS: Final = 300
_AT_ONCE: Final = 4
_OFF: Final = "profiles are off; start crio with --enable-profile-unix-socket"


def debug_routes(*, with_profiles: bool) -> dict[tuple[str, str], Route]:
    """The routes of the daemon's own socket."""

    async def off(request: Request) -> Reply:
        return text(404, _OFF)

    profiles = pprof_routes() if with_profiles else {("GET", "/debug/pprof/"): off, ("GET", "/debug/pprof/{}"): off}
    return {("GET", "/debug/goroutines"): _stacks, ("GET", "/debug/heap"): _heap, **profiles}


def pprof_routes() -> dict[tuple[str, str], Route]:
    """What is below `/debug/pprof/`."""
    profiler = _Profiler()
    shown: Mapping[str, Callable[[Request], Awaitable[Reply]]] = {
        "goroutine": _stacks,
        "threadcreate": _threads,
        "heap": _heap,
        "allocs": _heap,
        "profile": profiler.profile,
        "cmdline": _command_line,
    }

    async def index(request: Request) -> Reply:
        return _plain("/debug/pprof/\n\n" + "".join(f"{name}\n" for name in shown))

    async def one(request: Request) -> Reply:
        (name,) = request.words
        if name not in shown:
            raise NotFound("profile", name, f"there are {', '.join(shown)}")
        return await shown[name](request)

    return {("GET", "/debug/pprof/"): index, ("GET", "/debug/pprof/{}"): one}


class _Profiler:
    """Takes profiles, a few at once."""

    def __init__(self) -> None:
        self._running = 0

    async def profile(self, request: Request) -> Reply:
        """Of the next `seconds`.

        Raises:
            Invalid: not a number, or too long.
            Exhausted: several are being taken.
        """
        seconds = _seconds(request)
        if self._running >= _AT_ONCE:
            raise Exhausted(f"cannot take a profile: {_AT_ONCE} are being taken; try again later")
        self._running += 1
        try:
            return _plain(await _sampled(seconds))
        finally:
            self._running -= 1


async def _sampled(seconds: float) -> str:
    sampler = Sampler()
    async with Background() as tasks:
        tasks.start(threads.fresh(sampler.run), name="profile")
        try:
            await asyncio.sleep(seconds)
        finally:
            sampler.stop()
    return sampler.text()


def _seconds(request: Request) -> float:
    given = request.query.get("seconds", [str(_SECONDS)])[-1]
    if not given.isascii() or not given.isdigit() or not 0 < int(given[:9]) <= _MOST_SECONDS:
        raise Invalid("seconds", given, f"a whole number from 1 to {_MOST_SECONDS}")
    return float(given)


async def _stacks(request: Request) -> Reply:
    return _plain(stacks_text())


async def _threads(request: Request) -> Reply:
    return _plain(stacks_text(tasks=False))


async def _heap(request: Request) -> Reply:
    return _plain(await threads.files(heap_text))


async def _command_line(request: Request) -> Reply:
    return _plain("\0".join(sys.argv))


def _plain(body: str) -> Reply:
    return Reply(body=body.encode("utf-8", "replace"))
