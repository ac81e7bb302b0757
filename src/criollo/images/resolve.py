"""From what a client wrote to an image: by reference, by id, by the beginning of an id."""

import re
from typing import NamedTuple

from criollo.errors import Invalid, NotFound
from criollo.images.context import Images
from criollo.model.image import Image
from criollo.oci.reference import Reference

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_PREFIX = re.compile(r"[0-9a-f]{6,63}")


class Match(NamedTuple):
    """A local image, and the name or digest that it was found by, in full; empty when it was the id."""

    image: Image
    name: str = ""


def candidates(images: Images, text: str) -> list[Reference]:
    """The references to pull for what a client wrote, in order: a short name may have several.

    Raises:
        Invalid: it breaks the grammar of references, or is a short name that means nothing or too much.
    """
    return [candidate.reference for candidate in images.hosts.candidates(text)]


def meanings(images: Images, text: str) -> list[Reference]:
    """Every reference that a name may stand for among the images that are here.

    Raises:
        Invalid: it breaks the grammar of references.
    """
    return [candidate.reference for candidate in images.hosts.meanings(text)]


def match(images: Images, text: str) -> Match | None:
    """The local image that `text` means: an id (with or without `sha256:`), a reference, the beginning of an id."""
    if whole := _ID.fullmatch(text):
        image = images.rows.get(whole[1]) or images.foreign.get(whole[1])
        return None if image is None else Match(image)
    try:
        names = [_key(meaning) for meaning in meanings(images, text)]
    except Invalid:
        return None
    for name in names:
        if (image := images.rows.by_reference(name) or images.foreign.by_reference(name)) is not None:
            return Match(image, name)
    if not _PREFIX.fullmatch(text):
        return None
    begun = {image.id: image for image in (*images.foreign.by_prefix(text), *images.rows.by_prefix(text))}
    return Match(next(iter(begun.values()))) if len(begun) == 1 else None


def find(images: Images, text: str) -> Image | None:
    """The image of `match`."""
    found = match(images, text)
    return None if found is None else found.image


def require(images: Images, text: str) -> Image:
    """Like `find`, but the image must be there.

    Raises:
        Invalid: no text.
        NotFound: it is not there; the message says to pull it.
    """
    if not text:
        raise Invalid("config.image.image", text, "an image reference or id")
    found = find(images, text)
    if found is None:
        raise NotFound("image", text, "pull it first")
    return found


def _key(ref: Reference) -> str:
    """How a reference stands in the rows. With a digest the digest decides, whatever the tag says."""
    return str(ref) if ref.digest is None else f"{ref.name}@{ref.digest}"
