"""RemoveImage: untag, or remove the image with the layers nobody else needs."""

from criollo.errors import WrongState
from criollo.images.collect import collect_layers
from criollo.images.context import Images
from criollo.images.resolve import match
from criollo.model.ids import short
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


async def remove_image(images: Images, name: str) -> None:
    """Remove an image by id, or one name or digest of it; absence is success.

    By a name or digest, only that goes while other names remain. By the last name, or the id, the image goes.

    Raises:
        WrongState: containers need it; the message names them. Or it is not ours to remove.
    Source: CRI v1, RemoveImage; CRI-O's behaviour for names.
    """
    await images.foreign.refresh()
    found = match(images, name)
    if found is None:
        return
    image = found.image
    if image.store:
        raise WrongState(
            "image", short(image.id), f"in the store {image.store}, which is only read here", "the tool that it belongs to"
        )
    if found.name and set(image.names) - {found.name}:
        images.rows.untag([found.name])
        log.info("image untagged", image=image.id, name=found.name)
        return
    users = images.in_use(image.id)
    if users:
        raise WrongState("image", short(image.id), f"in use by container {', '.join(map(short, users[:5]))}", "no container")
    images.rows.remove(image.id)
    await collect_layers(images)
    log.info("image removed", image=image.id)
