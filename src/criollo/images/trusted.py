"""Whether the signature policy lets a local image run: judged again at every create, by the names it is here under."""

from criollo.errors import Denied
from criollo.images.context import Images
from criollo.images.resolve import match, meanings
from criollo.model.container import ImageSpec
from criollo.model.image import Image
from criollo.oci.reference import Reference


def judge_local(images: Images, image: Image, spec: ImageSpec) -> None:
    """Refuse an image that the policy rejects.

    The name the user wrote decides when it is a name of this image; else any of its names may vouch for it.

    Raises:
        Denied: the policy rejects it; the message names scope and reason.
    """
    refusal: Denied | None = None
    for ref in _references(images, image, spec):
        try:
            images.policy.judge(ref)
        except Denied as error:
            refusal = error
        else:
            return
    if refusal is not None:
        raise refusal
    images.policy.judge_unnamed(image.id)


def _references(images: Images, image: Image, spec: ImageSpec) -> list[Reference]:
    asked = spec.user_specified_image or spec.image
    found = match(images, asked)
    if found is not None and found.name and found.image.id == image.id:
        return [ref for ref in meanings(images, asked) if found.name in (str(ref), f"{ref.name}@{ref.digest}")]
    return [Reference.parse(name) for name in (*image.names, *image.digests)]
