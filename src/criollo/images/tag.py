"""Names of images that are here: given, and taken away. No registry is asked."""

from collections.abc import Sequence

import msgspec

from criollo.errors import Invalid, NotFound, WrongState
from criollo.images.context import Images
from criollo.images.resolve import Match, candidates, match, meanings
from criollo.model.ids import short
from criollo.model.image import Image
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


def tag_image(images: Images, name: str, new_names: Sequence[str]) -> list[str]:
    """Give an image further names; a name that another image has moves. Returns the names in full.

    Raises:
        Invalid: a name breaks the grammar, has a digest, or is short and may mean several.
        NotFound: no such image.
        WrongState: it is in a store that is only read.
    """
    image = _ours(known(images, name).image)
    if not new_names:
        raise Invalid("name", "", "at least one new name")
    full = [_full(images, text) for text in new_names]
    images.rows.add(msgspec.structs.replace(image, names=tuple(full), digests=()))
    log.info("image tagged", image=image.id, names=",".join(full))
    return full


def untag_image(images: Images, name: str, names: Sequence[str] = ()) -> list[str]:
    """Take names from an image, which stays; without `names` all its tags. Returns the names that went.

    Raises:
        NotFound: no such image, or a name is none of it.
    """
    image = _ours(known(images, name).image)
    gone = [_own(images, image, text) for text in names] or list(image.names)
    images.rows.untag(dict.fromkeys(gone))
    log.info("image untagged", image=image.id, names=",".join(gone))
    return gone


def known(images: Images, name: str) -> Match:
    """The image that a name or id means. Raises NotFound."""
    found = match(images, name)
    if found is None:
        raise NotFound("image", name, "kpod images lists those that are here")
    return found


def _ours(image: Image) -> Image:
    if image.store:
        state = f"in the store {image.store}, which is only read here"
        raise WrongState("image", short(image.id), state, "the tool that it belongs to")
    return image


def _full(images: Images, text: str) -> str:
    ref = candidates(images, text)[0]
    if ref.digest is not None:
        raise Invalid("name", text, "a name with a tag; a digest belongs to the bytes in a registry")
    return str(ref)


def _own(images: Images, image: Image, text: str) -> str:
    own = {*image.names, *image.digests}
    for ref in meanings(images, text):
        key = str(ref) if ref.digest is None else f"{ref.name}@{ref.digest}"
        if key in own:
            return key
    raise NotFound(f"name of image {short(image.id)}", text, f"it has {', '.join(sorted(own)) or 'none'}")
