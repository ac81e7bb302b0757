"""What we know of an image in the local store."""

from criollo.model.ids import ImageId
from criollo.model.pod import Record


class Image(Record, frozen=True, kw_only=True):
    """An image: its config, by digest, and the layers under it.

    `names` are references with a tag, `digests` are references with the digest of a manifest or index, both in full
    (`docker.io/library/busybox:latest`, `docker.io/library/busybox@sha256:…`). `layers` are directory names in the
    layer store, bottom first. `config` and `manifest` are the exact bytes that were verified. `store` is the root of the
    other tool's store that it lies in (`images.foreign`), empty for one of ours.
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
    store: str = ""

    @property
    def is_artifact(self) -> bool:
        """Whether it is no image to run but an artifact: its id is then the digest of its manifest, not of its config.

        Its `layers` hold a blob each, as it travelled (`images.artifacts`).
        """
        return self.manifest_digest == f"sha256:{self.id}"
