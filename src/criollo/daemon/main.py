"""The daemon: order of start and stop, signals.

Stop ends serving and watching, nothing else: containers and their monitors go on, and the next daemon adopts them.
"""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from criollo import __version__
from criollo.aio import threads
from criollo.aio.background import Background
from criollo.config.load import Loaded
from criollo.daemon.care import cared_for, marked, recalled
from criollo.daemon.notify import notify, watchdog_s
from criollo.daemon.serving import serve_on
from criollo.daemon.telemetry import telemetry_on
from criollo.engine.opening import Engine, open_engine
from criollo.errors import CriolloError
from criollo.linux.libc import malloc_trim, use_one_heap
from criollo.telemetry import log as logging

log = logging.get_logger(__name__)


def serve(loaded: Loaded, read: Callable[[], Loaded]) -> int:
    """Run the daemon until SIGTERM or SIGINT; `read` reads the configuration again, for SIGHUP. Returns the exit status."""
    logging.set_up(loaded.settings.runtime.log_level, form=loaded.log_format)
    logging.set_filter(loaded.settings.runtime.log_filter)
    os.umask(0o022)
    use_one_heap()
    if os.environ.get("KUBENSMNT"):
        from criollo.daemon import mount_namespace  # few nodes have one of their own

        mount_namespace.join(os.environ)  # before there are threads
    for warning in loaded.warnings:
        log.warning("configuration", cause=warning)
    try:
        asyncio.run(_serve(loaded, read))
    except CriolloError as error:
        log.error("cannot serve", cause=error)
        return 1
    finally:
        threads.close()
    return 0


async def _serve(loaded: Loaded, read: Callable[[], Loaded]) -> None:
    settings = loaded.settings
    stopping, hung_up = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    loop.add_signal_handler(signal.SIGUSR1, _tell_stacks)
    loop.add_signal_handler(signal.SIGUSR2, gc.collect)
    async with (
        marked(settings) as last,
        open_engine(settings, environ=os.environ) as engine,
        telemetry_on(engine),
        recalled(engine) as preload,
        cared_for(engine, last, preload),  # first: who is served may see us killed
        serve_on(engine, Path(settings.api.listen), by_tcp=True),
        Background() as tasks,
    ):
        log.info("serving", socket=settings.api.listen, version=__version__, python=sys.version.split()[0])
        gc.collect()
        gc.freeze()  # what is loaded now stays: later collections, on the loop, need not look at it (5 ms each)
        malloc_trim()
        tasks.start(_reload_at(hung_up, engine, read), name="reload the configuration")
        notify("READY=1")
        await _until(stopping)
        notify("STOPPING=1")
        log.info("stopping; containers go on")


def _tell_stacks() -> None:
    from criollo.daemon.stacks import write_stacks  # for most daemons, never

    write_stacks()


async def _reload_at(hung_up: asyncio.Event, engine: Engine, read: Callable[[], Loaded]) -> None:
    await hung_up.wait()
    from criollo.daemon.reload import Reloads  # for most daemons, never

    reloads = Reloads(engine, read)
    while True:
        hung_up.clear()
        await reloads.reload()
        await hung_up.wait()


async def _until(stopping: asyncio.Event) -> None:
    """Wait for the signal, and tell systemd's watchdog meanwhile that the loop turns."""
    every_s = watchdog_s()
    while not stopping.is_set():
        try:
            async with asyncio.timeout(every_s or None):
                await stopping.wait()
        except TimeoutError:
            notify("WATCHDOG=1")
