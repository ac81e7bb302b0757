"""RemoveImage: untag, or remove the image with the layers nobody else needs."""

from collections.abc import Sequence

from criollo.errors import WrongState
from criollo.images.context import Images
from criollo.images.resolve import find, reference
from criollo.model.ids import short
from criollo.model.image import Image
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


async def remove_image(images: Images, name: str) -> None:
    """Remove an image by id, or one name of it; absence is success.

    By a name, only that name goes while others remain. The last name, or the id, removes the image and its layers.

    Raises:
        WrongState: containers need it; the message names them.
    Source: CRI v1, RemoveImage; CRI-O's behaviour for names.
    """
    image = find(images, name)
    if image is None:
        return
    named = _name_meant(images, image, name)
    if named and len(image.names) > 1:
        images.rows.untag([named])
        log.info("image untagged", image=image.id, name=named)
        return
    users = images.in_use(image.id)
    if users:
        raise WrongState("image", short(image.id), f"in use by container {', '.join(map(short, users[:5]))}", "no container")
    images.rows.remove(image.id)
    await collect_layers(images)
    log.info("image removed", image=image.id)


async def collect_layers(images: Images) -> Sequence[str]:
    """Remove the layers that no image and no running pull or create needs; returns their names."""
    free = [name for name in images.rows.unreferenced_layers() if not images.leases[name]]
    images.rows.drop_layers(free)
    for name in free:
        await images.layers.remove(name)
    return free


def _name_meant(images: Images, image: Image, text: str) -> str:
    """The tag of `image` that `text` is; empty when it is an id or a digest."""
    if image.id.startswith(text.removeprefix("sha256:")):
        return ""
    full = str(reference(images, text))
    return full if full in image.names else ""
