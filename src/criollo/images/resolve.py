"""From what a client wrote to an image: by reference, by id, by the beginning of an id."""

import re

from criollo.errors import Invalid, NotFound
from criollo.images.context import Images
from criollo.model.image import Image
from criollo.oci.reference import Reference

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_PREFIX = re.compile(r"[0-9a-f]{6,63}")


def reference(images: Images, text: str) -> Reference:
    """The reference a short name stands for.

    Raises:
        Invalid: it breaks the grammar of references.
    """
    return Reference.parse(text, default_domain=images.hosts.default_domain)


def find(images: Images, text: str) -> Image | None:
    """The local image that `text` means: an id (with or without `sha256:`), a reference, the beginning of an id."""
    if whole := _ID.fullmatch(text):
        return images.rows.get(whole[1])
    try:
        ref = reference(images, text)
    except Invalid:
        return None
    found = by_reference(images, ref)
    if found is None and _PREFIX.fullmatch(text):
        candidates = images.rows.by_prefix(text)
        found = candidates[0] if len(candidates) == 1 else None
    return found


def by_reference(images: Images, ref: Reference) -> Image | None:
    """With a digest the digest decides, whatever the tag says."""
    if ref.digest is not None:
        return images.rows.by_reference(f"{ref.name}@{ref.digest}")
    return images.rows.by_reference(str(ref))


def require(images: Images, text: str) -> Image:
    """Like `find`, but the image must be there.

    Raises:
        NotFound: it is not; the message says to pull it.
    """
    if not text:
        raise Invalid("config.image.image", text, "an image reference or id")
    found = find(images, text)
    if found is None:
        raise NotFound("image", text, "pull it first")
    return found
