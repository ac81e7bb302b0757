"""`kpod exec` and `kpod attach`: a terminal or pipes here, a process there."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import click

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import TimedOut
from criollo.kpod import ends, launch, logs, rawmode, remote, signals
from criollo.kpod.detach import DEFAULT, parse_keys
from criollo.kpod.inspect import told
from criollo.kpod.lookup import everything, require_container
from criollo.kpod.session import Options, Session, work
from criollo.kpod.upgrade import target_of

HUNG_UP: Final = 129  # as shells say of a command that lost its terminal


class Manner(NamedTuple):
    """How a session is held."""

    stdin: bool
    tty: bool
    keys: bytes


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("-i", "--interactive", "stdin", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.option("--detach-keys", metavar="KEYS", default=DEFAULT, show_default=True, help="With -it: keys that end the session.")
@click.option(
    "--timeout",
    type=click.IntRange(0, launch.LONGEST_S),
    default=0,
    metavar="SECONDS",
    help="Kill the command after this time.",
)
@click.argument("container")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def exec_(options: Options, /, *, container: str, command: tuple[str, ...], timeout: int, **flags: object) -> int:
    """Run COMMAND in CONTAINER, and exit as it does."""
    manner = make_manner(**flags)  # type: ignore[arg-type]  # click has the types
    words = command[1:] if command[0] == "--" else command
    if not words:
        raise click.UsageError("a command is missing after '--'.")

    async def verb(session: Session) -> int:
        found = require_container(await everything(session), container)
        request = pb.ExecRequest(
            container_id=found.id, cmd=words, tty=manner.tty, stdin=manner.stdin, stdout=True, stderr=not manner.tty
        )
        try:
            reply = await session.client.runtime("Exec", request)
            async with asyncio.timeout(timeout or None):
                return await hold(session, reply.url, manner)
        except TimeoutError:
            raise TimedOut(f"cannot run {words[0]} to its end: it took over {timeout} s and was killed") from None
        except remote.Detached:
            click.echo("kpod: the session was ended, and the command with it", err=True)
            return HUNG_UP

    return work(options, verb)


@click.command("attach")
@click.option("--no-stdin", is_flag=True, help="Do not pass standard input on.")
@click.option(
    "--detach-keys", metavar="KEYS", default=DEFAULT, show_default=True, help="On a terminal: keys that let go of it."
)
@click.argument("container")
@click.pass_obj
def attach(options: Options, container: str, no_stdin: bool, detach_keys: str) -> int:
    """Connect to the process of CONTAINER from now on, and exit as it does. What it wrote before: kpod logs."""
    keys = parse_keys(detach_keys)

    async def verb(session: Session) -> int:
        found = require_container(await everything(session), container)
        tty = await has_terminal(session, found.id)
        manner = Manner(not no_stdin, tty, keys if tty and os.isatty(ends.INPUT) else b"")
        return await attend(session, found.id, manner)

    return work(options, verb)


async def attend(session: Session, container_id: str, manner: Manner) -> int:
    """Be attached to a container until it has ended; its exit code, 0 when it goes on without us."""
    try:
        with signals.orderly_end():
            async with attached(session, container_id, manner) as opened:
                await converse(opened, manner)
    except signals.Ended as ended:
        return ended.status
    except remote.Detached:
        return 0
    found = await logs.status(session, container_id)  # of one that has ended it says so before its streams end
    return int(found.exit_code) if logs.is_over(found) else 0


@contextlib.asynccontextmanager
async def attached(session: Session, container_id: str, manner: Manner) -> AsyncIterator[remote.Remote]:
    """The streams of a container that runs, or is made and not started yet: then nothing that it says is lost."""
    request = pb.AttachRequest(
        container_id=container_id, tty=manner.tty, stdin=manner.stdin, stdout=True, stderr=not manner.tty
    )
    reply = await session.client.runtime("Attach", request)
    wanted = remote.Wanted(stdin=manner.stdin, tty=manner.tty)
    async with remote.opened(session.socket, target_of(reply.url), wanted) as opened:
        yield opened


async def has_terminal(session: Session, container_id: str) -> bool:
    """Whether the process of a container has a terminal."""
    request = pb.ContainerStatusRequest(container_id=container_id, verbose=True)
    spec = told((await session.client.runtime("ContainerStatus", request)).info).get("runtimeSpec")
    process = spec.get("process") if isinstance(spec, dict) else None
    return isinstance(process, dict) and process.get("terminal") is True


def make_manner(*, stdin: bool, tty: bool, detach_keys: str) -> Manner:
    """The flags, checked. Raises UsageError, Invalid."""
    manner = Manner(stdin, tty, parse_keys(detach_keys) if tty else b"")
    check_terminal(manner)
    return manner


def check_terminal(manner: Manner) -> None:
    """Raise UsageError when a terminal is wanted and there is none."""
    if manner.stdin and manner.tty and not os.isatty(ends.INPUT):
        raise click.UsageError("standard input is no terminal: leave -t out.")


class Talk:
    """A talk with a container that `begin`s before it runs, and `go_on` when it does; closed with the stack."""

    def __init__(self, session: Session, manner: Manner, stack: contextlib.AsyncExitStack) -> None:
        self._session, self._manner, self._stack = session, manner, stack
        self._opened: remote.Remote | None = None

    async def begin(self, container_id: str) -> None:
        """Attach."""
        self._opened = await self._stack.enter_async_context(attached(self._session, container_id, self._manner))
        await self._opened.connection.ping()  # the daemon has taken all streams, and is attached

    async def go_on(self) -> None:
        """Pass everything on to the container's end. Raises as `remote.run`."""
        assert self._opened is not None, "not begun"
        await converse(self._opened, self._manner)


async def hold(session: Session, url: str, manner: Manner) -> int:
    """Hold an exec to its end; its exit code, or that of kpod when a signal ends it. Raises as `remote.run`."""
    wanted = remote.Wanted(stdin=manner.stdin, tty=manner.tty)
    try:
        with signals.orderly_end():
            async with remote.opened(session.socket, target_of(url), wanted) as opened:
                return await converse(opened, manner)
    except signals.Ended as ended:
        return ended.status


async def converse(opened: remote.Remote, manner: Manner) -> int:
    """Our own streams and the session's, until its end. A terminal is raw meanwhile. Raises as `remote.run`."""
    async with contextlib.AsyncExitStack() as stack:
        stdout = await stack.enter_async_context(ends.standard_output())
        stderr = await stack.enter_async_context(ends.standard_error())
        stdin = await stack.enter_async_context(ends.standard_input()) if manner.stdin else None
        sizes = None
        if manner.tty and os.isatty(ends.INPUT):
            if manner.stdin:
                stack.enter_context(rawmode.raw(ends.INPUT))
            sizes = await stack.enter_async_context(contextlib.aclosing(rawmode.sizes(ends.INPUT)))
        return await remote.run(opened, remote.Ours(stdin, stdout, stderr, sizes, manner.keys))
