"""The signatures of an image, looked for at a pull: in lookasides by registries.d, and attached in the registry.

What the pod's policy wants must be found or the pull fails; what another policy of this node wants is taken along if it is
there, so that the image can be judged by that one too without being pulled again.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from criollo.aio import threads
from criollo.errors import CriolloError, Denied, Invalid
from criollo.images.context import Images
from criollo.linux.home import with_home
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.oci.signature import SignatureKind
from criollo.registry.client import Registry, Shown
from criollo.telemetry.log import get_logger
from criollo.trust.judge import Case, Evidence

log = get_logger(__name__)


class Asked(NamedTuple):
    """A manifest that is about to be used: its bytes, the reference it was asked for by, and the repository that served it."""

    reference: Reference
    raw: bytes
    source: str
    shown: Shown
    registry: Registry | None = None  # None: the node's


async def prove(images: Images, asked: Asked, *, namespace: str) -> tuple[Digest, Sequence[bytes]]:
    """Judge a manifest for pods of a namespace; returns its digest and the signatures to keep of it.

    What a mirror served may have its signatures under the mirror's name: they are looked for there too.

    Raises:
        Denied: the policy refuses it.
        Unavailable: where the signatures are does not answer.
    """
    ref, digest = asked.reference, Digest.of(asked.raw)
    registry, conf = asked.registry or images.registry, images.signatures_conf
    wanted = images.judge.kinds_wanted(ref, namespace)
    blobs = await find_signatures(registry, conf, asked, wanted) if wanted else []
    further = images.judge.kinds_useful(ref) - wanted
    if further:
        try:
            blobs = [*blobs, *await find_signatures(registry, conf, asked, further)]
        except CriolloError as error:
            log.info("signatures that another policy wants cannot be had", image=ref, error=error)
    evidence = Evidence(digest, tuple(dict.fromkeys(blobs)))
    await images.judge.judge(Case(ref, (evidence.fingerprint,), lambda: [evidence]), namespace=namespace)
    return digest, evidence.blobs


async def find_signatures(registry: Registry, conf: Path | None, asked: Asked, kinds: frozenset[SignatureKind]) -> list[bytes]:
    """The signatures of a manifest as blobs, where the files in the directory `conf` say that they are.

    Raises:
        Denied: those files cannot be read.
        Unavailable: where the signatures are does not answer.
    """
    from criollo.registry import attached, lookaside  # a node whose policy wants no signatures does without
    from criollo.registry.registries_d import SignaturePlaces, default_lookaside

    ref, digest = asked.reference, Digest.of(asked.raw)
    try:
        places = await threads.files(SignaturePlaces.load, conf)
    except CriolloError as error:
        raise Denied(f"cannot use image {ref}: where its signatures are cannot be read: {error}") from error
    names = [ref]
    with suppress(Invalid):  # what serves a mirror need not be a name of the grammar
        names.insert(0, _named_by(asked.source, ref))
    found: list[bytes] = []
    bases = [(base, name.path) for name in names if (base := places.lookaside(name)) is not None]
    kept = None  # by the registry, where no file says that they are elsewhere
    if not bases and SignatureKind.SIMPLE in kinds:
        from criollo.registry import extension  # few policies want these, and most nodes have a file that says where they are

        kept = await extension.fetch(registry, ref, digest, asked.shown, source=asked.source)
        found += kept or []
    if kept is None:
        usual = default_lookaside(with_home(os.environ), os.geteuid())
        for base, path in dict.fromkeys(bases or [(usual, name.path) for name in names]):
            found += await lookaside.fetch(registry, base, path, digest)
    if SignatureKind.SIGSTORE in kinds and any(places.uses_attachments(name) for name in names):
        found += [each.to_blob() for each in await attached.fetch(registry, ref, digest, asked.shown)]
    return found


def _named_by(source: str, ref: Reference) -> Reference:
    """The reference with the name of the repository that served it."""
    served = Reference.parse(source)
    return served.with_digest(ref.digest) if ref.digest is not None else served.with_tag(ref.tag)
