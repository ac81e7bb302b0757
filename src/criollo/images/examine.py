"""What a policy would say of an image at its registry, without pulling it."""

from pathlib import Path
from typing import NamedTuple

from criollo.errors import Denied, Invalid
from criollo.images.remote import RemoteImage
from criollo.images.signatures import Asked, find_signatures
from criollo.oci.digest import Digest
from criollo.oci.signature import parse_blob
from criollo.registry.client import Registry, Shown
from criollo.trust.judge import Case, Evidence, Judge


class Verdict(NamedTuple):
    """The demands on an image, what was found, and why it is refused; an empty `refusal` lets it pass.

    `digest` is of the manifest that would run; `found` counts its signatures by kind.
    """

    digest: Digest
    policy: str
    scope: str
    demands: tuple[str, ...]
    found: dict[str, int]
    refusal: str


async def examine(
    registry: Registry, judge: Judge, conf: Path | None, image: RemoteImage, shown: Shown = None, *, namespace: str = ""
) -> Verdict:
    """Judge an image for pods of a namespace as a pull would; `conf` is the directory of registries.d.

    Raises:
        Unavailable, Unauthenticated, Forbidden: where the signatures are does not answer, or not us.
        TimedOut, ToolFailed: what checks signatures did not do its work.
    """
    policy = judge.policies.find(namespace)
    scope, demands = policy.demands(image.reference)
    digest, refusal = Digest.of(image.chosen), ""
    blobs: list[bytes] = []
    try:
        wanted = judge.kinds_wanted(image.reference, namespace)
        asked = Asked(image.reference, image.chosen, image.source, shown)
        blobs = await find_signatures(registry, conf, asked, wanted) if wanted else []
        evidence = Evidence(digest, tuple(dict.fromkeys(blobs)))
        await judge.judge(Case(image.reference, (evidence.fingerprint,), lambda: [evidence]), namespace=namespace)
    except Denied as error:
        refusal = str(error)
    return Verdict(digest, policy.source, scope, tuple(each.summary for each in demands), _count(blobs), refusal)


def _count(blobs: list[bytes]) -> dict[str, int]:
    kinds = [_kind(blob) for blob in dict.fromkeys(blobs)]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def _kind(blob: bytes) -> str:
    try:
        return str(parse_blob(blob).kind)
    except Invalid:
        return "malformed"
