"""`kpod logs`: the output of a container, from its log file; no runtime call is needed while it is read."""

import sys
from contextlib import aclosing
from pathlib import Path

import click

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import CriolloError, NotFound
from criollo.kpod import lookup
from criollo.kpod.logfile import Output, entries
from criollo.kpod.session import Options, Session, work


@click.command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on until the container has ended.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@click.option("--timestamps", is_flag=True, help="Begin each line with its time, in UTC.")
@click.argument("container")
@click.pass_obj
def logs(options: Options, container: str, follow: bool, tail: int | None, timestamps: bool) -> int:
    """Print what CONTAINER wrote: its output to ours, its errors to ours."""

    async def verb(session: Session) -> int:
        found = lookup.require_container(await lookup.everything(session), container)
        await show(session, found.id, follow=follow, tail=tail, timestamps=timestamps)
        return 0

    return work(options, verb)


async def show(session: Session, container_id: str, *, follow: bool, tail: int | None = None, timestamps: bool = False) -> None:
    """Write the log of a container to our own streams.

    Raises:
        NotFound: the container or its log is gone.
        CriolloError: it was made without a log.
    """
    path = (await status(session, container_id)).log_path
    if not path:
        raise CriolloError(f"container {container_id} has no log: it was made without a log path")

    async def ended() -> bool:
        return await has_ended(session, container_id)

    output = Output(sys.stdout.buffer, sys.stderr.buffer, timestamps=timestamps)
    async with aclosing(entries(Path(path), tail=tail, ended=ended if follow else None)) as found:
        async for entry in found:
            output.write(entry)


async def status(session: Session, container_id: str) -> pb.ContainerStatus:
    """The status of one container. Raises NotFound."""
    reply = await session.client.runtime("ContainerStatus", pb.ContainerStatusRequest(container_id=container_id))
    found: pb.ContainerStatus = reply.status
    return found


async def has_ended(session: Session, container_id: str) -> bool:
    """Whether a container runs no more, or is gone."""
    try:
        return is_over(await status(session, container_id))
    except NotFound:
        return True


def is_over(found: pb.ContainerStatus) -> bool:
    """Whether a container runs no more."""
    return found.state in (pb.CONTAINER_EXITED, pb.CONTAINER_UNKNOWN)
