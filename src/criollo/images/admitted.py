"""Whether an image may come from a file: two questions, for `kpod load` and for the preload directory alike.

The scopes of the file's transport say whether images may come from such a place at all, or by which signatures; then, for each
name that the image would have, the scopes of `transports.docker` say whether it may have that name. Only a `dir` brings
signatures that could meet a demand. An image without a name is asked about when it is run, like any other.
"""

from pathlib import Path

from criollo.aio import threads
from criollo.images.context import Images
from criollo.images.layout import Found, transport_of
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.trust.judge import Case, Evidence
from criollo.trust.places import FilePlace


async def admit_source(images: Images, directory: int, path: Path) -> FilePlace:
    """Let images come from `path`, whose layout is in `directory`, or refuse it; returns the place for `admit_image`.

    Raises:
        Denied: the node's policy does not accept what its transport brings.
    """
    place = await threads.files(lambda: FilePlace.at(transport_of(directory, path), path))
    images.judge.judge_file(place)
    return place


async def admit_image(images: Images, found: Found, place: FilePlace) -> None:
    """Let an image come from a place and have its names, or refuse it.

    Raises:
        Denied: the policy does not let it come from there, or have one of its names.
        TimedOut, ToolFailed: what checks signatures did not do its work.
    """
    evidence = Evidence(Digest.of(found.raw_manifest), found.signatures)
    prints = (evidence.fingerprint,) if found.signatures else ()
    image_id = Digest.of(found.config).hex
    proof = [evidence] if evidence.blobs else []
    await images.judge.judge(Case(None, prints, lambda: proof, image_id, place))
    for name in found.names or found.digests[:1]:
        await images.judge.judge(Case(Reference.parse(name), prints, lambda: proof, image_id))
