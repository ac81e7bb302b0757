"""The verbs that end what runs: stop, rm."""

import click

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import WrongState
from criollo.kpod import launch
from criollo.kpod.lookup import everything, require_either
from criollo.kpod.outcome import each_of
from criollo.kpod.session import Options, Session, work
from criollo.kpod.text import short

GRACE_S = 10


@click.command("stop")
@click.option(
    "-t",
    "--time",
    "grace_s",
    type=click.IntRange(0, launch.LONGEST_S),
    default=GRACE_S,
    show_default=True,
    help="Seconds of grace.",
)
@click.argument("names", nargs=-1, required=True, metavar="POD|CONTAINER...")
@click.pass_obj
def stop(options: Options, names: tuple[str, ...], grace_s: int) -> int:
    """Stop pods with all their containers, or containers."""

    async def verb(session: Session) -> int:
        async def one(name: str) -> None:
            found = require_either(await everything(session), name)
            if isinstance(found, pb.PodSandbox):
                await launch.stop_pod(session, found.id, grace_s=grace_s)
            else:
                await launch.stop_container(session, found.id, grace_s=grace_s)
            click.echo(name)

        return await each_of(names, one)

    return work(options, verb)


@click.command("rm")
@click.option("-f", "--force", is_flag=True, help="Also what runs: it is killed.")
@click.argument("names", nargs=-1, required=True, metavar="POD|CONTAINER...")
@click.pass_obj
def rm(options: Options, names: tuple[str, ...], force: bool) -> int:
    """Remove pods with all their containers, or containers."""

    async def verb(session: Session) -> int:
        async def one(name: str) -> None:
            await _remove(session, name, force=force)
            click.echo(name)

        return await each_of(names, one)

    return work(options, verb)


async def _remove(session: Session, name: str, *, force: bool) -> None:
    known = await everything(session)
    found = require_either(known, name)
    inside = known.containers_of(found.id) if isinstance(found, pb.PodSandbox) else [found]
    running = [each for each in inside if each.state == pb.CONTAINER_RUNNING]
    if running and not force:
        which = f"{running[0].metadata.name} ({short(running[0].id)})"
        raise WrongState("container", which, "running", "kpod stop before, or rm -f")
    if isinstance(found, pb.PodSandbox):
        await launch.remove_pod(session, found)
    else:
        await session.client.runtime("RemoveContainer", pb.RemoveContainerRequest(container_id=found.id))
