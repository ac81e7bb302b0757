"""What we know of an image in the local store."""

from criollo.model.ids import ImageId
from criollo.model.pod import Record


class Image(Record, frozen=True, kw_only=True):
    """An image: its config, by digest, and the layers under it.

    `names` are references with a tag, `digests` are references with the digest of a manifest or index, both in full
    (`docker.io/library/busybox:latest`, `docker.io/library/busybox@sha256:…`). `layers` are directory names in the
    layer store, bottom first. `config` and `manifest` are the exact bytes that were verified.
    """

    id: ImageId
    names: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    manifest_digest: str
    manifest: bytes
    config: bytes
    layers: tuple[str, ...]
    size_bytes: int
    pulled_ns: int
    pinned: bool = False
    annotations: dict[str, str] = {}
