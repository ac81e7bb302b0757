"""Profiles that the settings ask for: a port on loopback, and files that are written at the end. Loaded only then."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Final

from criollo.aio import threads
from criollo.aio.background import Background
from criollo.aio.http_server import HttpLimits, HttpServer
from criollo.config.profile import Profile
from criollo.daemon.debug import pprof_routes
from criollo.errors import explain
from criollo.streaming.listener import Listener
from criollo.telemetry.log import get_logger
from criollo.telemetry.sampling import Sampler
from criollo.telemetry.stacks import heap_text

log = get_logger(__name__)

MAX_CONNECTIONS: Final = 16
_LOOPBACK: Final = "127.0.0.1"


@asynccontextmanager
async def profiling_on(profile: Profile) -> AsyncIterator[None]:
    """Do what is asked for while the block runs.

    Raises:
        HostFailed: the port is taken, or a file cannot be written.
    """
    with ExitStack() as files:
        cpu = files.enter_context(_file(profile.profile_cpu)) if profile.profile_cpu else None
        memory = files.enter_context(_file(profile.profile_mem)) if profile.profile_mem else None
        if memory is not None:
            import tracemalloc  # 0.3 MiB, and all that is made costs more from now on

            tracemalloc.start()
        sampler = Sampler() if cpu is not None else None
        try:
            async with Background() as tasks:
                if profile.profile:
                    port = _port(profile)
                    files.callback(port.stop_accepting)
                    port.open()
                    log.info("serving profiles", url=f"{port.base_url}/debug/pprof/")
                    tasks.start(port.run(), name="profile port")
                if sampler is not None:
                    tasks.start(threads.fresh(sampler.run), name="CPU profile")
                try:
                    yield
                finally:
                    if sampler is not None:
                        sampler.stop()
        finally:
            if cpu is not None and sampler is not None:
                await threads.files(_write, cpu, sampler.text())
                log.info("CPU profile written", path=profile.profile_cpu)
            if memory is not None:
                await threads.files(_write, memory, await threads.files(heap_text))
                log.info("memory profile written", path=profile.profile_mem)


def _port(profile: Profile) -> Listener:
    http = HttpServer(pprof_routes(), HttpLimits(body_bytes=1 << 10))
    port = Listener(_LOOPBACK, profile.profile_port, serve=http.serve, limit=MAX_CONNECTIONS)
    port.what, port.keys = "profiles", ("profile", "profile_port", "")
    return port


@contextmanager
def _file(path: str) -> Iterator[int]:
    """The file, open at the start, so that a path that does not work is known before the profile is made; for root alone."""
    with explain(f"write a profile to {path}"):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _write(fd: int, text: str) -> None:
    with open(fd, "w", closefd=False, encoding="utf-8", errors="replace") as file:
        file.write(text)
