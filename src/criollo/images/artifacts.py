"""OCI artifacts in the store: every blob is a layer of its own, a directory with the one file `blob`, as it travelled.

    <root>/layers/<name>/blob        mode 0444; the name is that of the blob's digest, so artifacts share blobs

So a blob is fetched, committed, leased, counted and collected as a layer is, and what holds for layers under `kill -9`
holds for it. The row of an artifact is that of an image whose id is the digest of its manifest (`Image.is_artifact`).
"""

from collections.abc import Sequence
from pathlib import Path

from criollo.errors import Unsupported
from criollo.images.commit import BLOB_FILE, Blob
from criollo.images.context import Images
from criollo.model.ids import short
from criollo.model.image import Image
from criollo.oci.artifact import NamedBlob, named_blobs, select
from criollo.oci.digest import Digest
from criollo.oci.image_spec import Manifest, decode_manifest
from criollo.state.images import LayerRow
from criollo.storage.layers import layer_name


def plan_blobs(manifest: Manifest) -> list[Blob]:
    """The blobs of an artifact as `images.commit` takes them; one that is named twice counts once."""
    blobs = {layer.digest: layer for layer in manifest.layers}
    return [Blob(layer, digest, blob_name(digest), as_is=True) for digest, layer in blobs.items()]


def blob_name(digest: Digest) -> str:
    """The directory of a blob in the layer store; never that of a layer with the same digest."""
    return layer_name(Digest.of(f"blob {digest}".encode()))


def is_blob(row: LayerRow) -> bool:
    """Whether a row of the layer store is of an artifact's blob; its `diff_id` is then the digest of the file."""
    return row.name == blob_name(Digest(row.diff_id))


def blob_path(images: Images, digest: Digest) -> Path:
    """Where the file of a blob is."""
    return images.layers.path(blob_name(digest)) / BLOB_FILE


def mountable(image: Image, sub_path: str = "") -> Sequence[NamedBlob]:
    """The files that a volume of the artifact has: their paths below the place of the mount, and their blobs.

    Raises:
        NotFound: none below the sub path.
        Invalid: a name that must not become a path.
    """
    manifest = decode_manifest(image.manifest, artifacts=True)
    if not isinstance(manifest, Manifest):
        raise Unsupported(f"cannot mount artifact {short(image.id)}: it is an index")
    return select(named_blobs(manifest), sub_path, artifact=image.names[0] if image.names else short(image.id))


def require_image(image: Image) -> Image:
    """The same, if it is an image to run.

    Raises:
        Unsupported: it is an artifact.
    """
    if image.is_artifact:
        name = image.names[0] if image.names else short(image.id)
        raise Unsupported(f"cannot run {name}: it is an OCI artifact, not an image; mount it as a volume instead")
    return image
