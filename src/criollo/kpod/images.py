"""`kpod rmi`: take images away."""

import click

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import NotFound, printable
from criollo.kpod.outcome import each_of
from criollo.kpod.pull import status
from criollo.kpod.session import Options, Session, work


@click.command("rmi")
@click.option("-f", "--force", is_flag=True, help="Remove containers that use them, too.")
@click.option("-a", "--all", "everything_here", is_flag=True, help="All images that are not pinned.")
@click.option("-i", "--ignore", is_flag=True, help="What is not there is no error.")
@click.argument("images", nargs=-1)
@click.pass_obj
def rmi(options: Options, images: tuple[str, ...], force: bool, everything_here: bool, ignore: bool) -> int:
    """Remove images: a name loses its image, an id all names of it."""
    if bool(images) == everything_here:
        raise click.UsageError("Name images, or say --all.")

    async def verb(session: Session) -> int:
        async def remove(name: str) -> None:
            found = await status(session, name)
            if found is None:
                if ignore:
                    return
                raise NotFound("image", name, "kpod images lists them")
            if force:
                await _remove_users(session, found.id)
            await session.client.image("RemoveImage", pb.RemoveImageRequest(image=pb.ImageSpec(image=name)))
            click.echo(printable(name))

        return await each_of(await _unpinned(session) if everything_here else images, remove)

    return work(options, verb)


async def _unpinned(session: Session) -> list[str]:
    reply = await session.client.image("ListImages", pb.ListImagesRequest())
    return [image.id for image in reply.images if not image.pinned]


async def _remove_users(session: Session, image_id: str) -> None:
    reply = await session.client.runtime("ListContainers", pb.ListContainersRequest())
    for each in reply.containers:
        if image_id in (each.image_id, each.image_ref):
            await session.client.runtime("RemoveContainer", pb.RemoveContainerRequest(container_id=each.id))
