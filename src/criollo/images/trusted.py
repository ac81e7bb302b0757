"""Whether the signature policy lets a local image run: judged again at every create, by the names it is here under."""

from collections.abc import Sequence

from criollo.errors import Denied
from criollo.images.context import Images
from criollo.images.resolve import match, meanings
from criollo.model.container import ImageSpec
from criollo.model.image import Image
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.trust.judge import Case, Evidence


async def judge_local(images: Images, image: Image, spec: ImageSpec, *, namespace: str = "") -> None:
    """Refuse an image that the policy of a pod's namespace, as it is now, does not let run.

    The name the user wrote decides when it is a name of this image; else any of its names may vouch for it. An image that was
    accepted before is accepted without a pause.

    Raises:
        Denied: the policy refuses it; the message names scope and reason.
        TimedOut, ToolFailed: what checks signatures did not do its work.
    """
    kept = images.rows.signatures

    def evidence() -> Sequence[Evidence]:
        if image.store:
            return [images.foreign.evidence(image)]
        return [Evidence(Digest(digest), blobs) for digest, blobs in kept.of(image.id)]

    prints = (images.foreign.evidence(image).fingerprint,) if image.store else kept.fingerprints(image.id)

    refusal: Denied | None = None
    for ref in _references(images, image, spec):
        try:
            await images.judge.judge(Case(ref, prints, evidence, image.id), namespace=namespace)
        except Denied as error:
            refusal = error
        else:
            return
    if refusal is not None:
        raise refusal
    await images.judge.judge(Case(None, (), list, image.id), namespace=namespace)


def _references(images: Images, image: Image, spec: ImageSpec) -> list[Reference]:
    asked = spec.as_written
    found = match(images, asked)
    if found is not None and found.name and found.image.id == image.id:
        return [ref for ref in meanings(images, asked) if found.name in (str(ref), f"{ref.name}@{ref.digest}")]
    return [Reference.parse(name) for name in (*image.names, *image.digests)]
