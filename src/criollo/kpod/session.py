"""Where the verbs find a runtime: the daemon that answers on the socket, else the engine in this process.

Either way a verb speaks CRI and a little HTTP over a unix socket, so there is one code path:

    daemon runs      connect to `listen`
    none runs        open the engine, serve it at <runroot>/kpod.sock (root only), connect to that

An engine in this process owns the root directory as a daemon would: while it is open no other one can be opened, and
containers outlive it.
"""

import asyncio
import contextlib
import errno
import os
import socket as sockets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from criollo.config.files import find_default
from criollo.config.load import Loaded, load
from criollo.config.settings import Settings
from criollo.errors import Denied, Unavailable, from_os
from criollo.kpod.signals import Ended, orderly_end
from criollo.telemetry import log

if TYPE_CHECKING:
    from criollo.cri.client import Client


class Options(NamedTuple):
    """The global options of kpod; None: not given."""

    config: str | None = None
    config_dir: str | None = None
    listen: str | None = None
    log_level: str = "error"


class Session(NamedTuple):
    """A runtime that answers."""

    client: "Client"
    socket: Path
    settings: Settings
    in_process: bool


Verb = Callable[[Session], Awaitable[int]]


def work(options: Options, verb: Verb) -> int:
    """Run a verb against the runtime of this node; returns its exit status. SIGTERM and SIGHUP let it clean up first.

    Raises:
        CriolloError: of any kind; one, never a group.
    """
    log.set_up(options.log_level)
    loaded = load_settings(options)
    try:
        return asyncio.run(_work(loaded, verb))
    except Ended as ended:
        return ended.status
    except BaseExceptionGroup as group:  # the engine's task groups wrap what passes through them
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def load_settings(options: Options) -> Loaded:
    """The configuration, found as crio finds it."""
    usual_conf, usual_dir = find_default()
    conf = usual_conf if options.config is None else Path(options.config).absolute() if options.config else None
    conf_dir = usual_dir if options.config_dir is None else Path(options.config_dir).absolute() if options.config_dir else None
    overrides = {} if options.listen is None else {"crio.api.listen": os.path.abspath(options.listen)}
    return load(conf, conf_dir, environ=os.environ, overrides=overrides)


async def _work(loaded: Loaded, verb: Verb) -> int:
    with orderly_end():
        async with open_session(loaded) as session:
            return await verb(session)


@contextlib.asynccontextmanager
async def open_session(loaded: Loaded) -> AsyncIterator[Session]:
    """A session with the daemon, or with an engine of our own that ends with the block.

    Raises:
        Denied: the socket or the engine is not for this user.
        Unavailable: the daemon does not answer, or another process owns the root directory.
        Invalid, Unsupported, Damaged, HostFailed: as `open_engine`.
    """
    from criollo.cri.client import connect  # protobuf: MiB and time that --help does not need

    listen = Path(loaded.settings.api.listen)
    async with contextlib.AsyncExitStack() as stack:
        in_process = not _is_served(listen)
        if in_process:
            listen = await stack.enter_async_context(_own_engine(loaded))
        client = await stack.enter_async_context(connect(listen))
        yield Session(client, listen, loaded.settings, in_process)


@contextlib.asynccontextmanager
async def _own_engine(loaded: Loaded) -> AsyncIterator[Path]:
    if os.geteuid() != 0:
        raise Denied(f"no daemon answers on {loaded.settings.api.listen}, and working without one needs root: use sudo")
    # The engine brings all drivers: 0.3 s that a verb over the socket does not need.
    from criollo.aio import threads
    from criollo.config.host import Host, settle_on_host
    from criollo.daemon.serving import serve_on
    from criollo.engine.opening import PRIVATE_SOCKET, open_engine

    os.umask(0o022)  # as the daemon: what is made for containers is readable by them
    settled = settle_on_host(loaded, Host.here(os.environ))
    path = Path(settled.settings.runroot) / PRIVATE_SOCKET
    try:
        async with open_engine(settled.settings, environ=os.environ) as engine, serve_on(engine, path):
            yield path
    finally:
        threads.close()


def _is_served(path: Path) -> bool:
    """Whether somebody listens there. Raises Denied, Unavailable when that cannot be told."""
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            number = probe.connect_ex(os.fspath(path))
        except OSError as error:  # the path is too long for a socket
            raise Unavailable(f"cannot connect to {path}: {error}") from error
    if number in (0, errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
        return number == 0
    refusal = OSError(number, os.strerror(number))
    if number in (errno.EACCES, errno.EPERM):
        raise Denied(f"cannot connect to {path}: {refusal.strerror}; use sudo")
    if number == errno.EAGAIN:
        raise Unavailable(f"cannot connect to {path}: no answer in 5 s; is the daemon stuck?")
    raise from_os(refusal, f"cannot connect to {path}")
