"""Whether an image may come from a file: two questions, for `kpod load` and for the preload directory alike.

The scopes of the file's transport say whether images may come from such a place at all; then, for each name that the image
would have, the scopes of `transports.docker` say whether it may have that name. Only a `dir` brings signatures that could meet
a demand. An image without a name is asked about when it is run, like any other.
"""

from pathlib import Path

from criollo.aio import threads
from criollo.images.context import Images
from criollo.images.layout import Found, transport_of
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.trust.judge import Case, Evidence


async def admit_source(images: Images, directory: int, path: Path) -> None:
    """Let images come from `path`, whose layout is in `directory`, or refuse it.

    Raises:
        Denied: the node's policy does not accept what its transport brings.
    """
    images.judge.judge_file(await threads.files(transport_of, directory, path), path)


async def admit_image(images: Images, found: Found) -> None:
    """Let an image have its names, or refuse it.

    Raises:
        Denied: the policy does not let it have one of them.
        TimedOut, ToolFailed: what checks signatures did not do its work.
    """
    evidence = Evidence(Digest.of(found.raw_manifest), found.signatures)
    prints = (evidence.fingerprint,) if found.signatures else ()
    image_id = Digest.of(found.config).hex
    for name in found.names or found.digests[:1]:
        await images.judge.judge(Case(Reference.parse(name), prints, lambda: [evidence] if evidence.blobs else [], image_id))
