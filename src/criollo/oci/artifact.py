"""OCI artifacts: manifests of something else than an image, whose blobs are files with names.

    named_blobs(manifest) -> [NamedBlob("model/weights.bin", descriptor), …]        select(blobs, "model") -> ["weights.bin"]

A name comes from an annotation that anybody may have written, and becomes a path in somebody's container: it stays below
the place of the mount, or the artifact is not mounted. Blobs without a name have no place there.

Source: OCI image-spec v1.1, annotations.md; CNCF model-spec, annotations.md.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from criollo.errors import Invalid, NotFound
from criollo.oci.digest import Digest
from criollo.oci.image_spec import Descriptor, Manifest

TITLE: Final = "org.opencontainers.image.title"
MODEL_PATH: Final = "org.cncf.model.filepath"
_NAMES: Final = (TITLE, MODEL_PATH, "org.cnai.model.filepath")  # the last one is what the model spec wrote first

_LONGEST_NAME: Final = 1024
_LONGEST_PART: Final = 255


class NamedBlob(NamedTuple):
    """A blob and the relative path that its file has; empty for the file at the place of the mount itself."""

    name: str
    digest: Digest


def artifact_id(raw: bytes) -> str:
    """The id of an artifact: the digest of its manifest, since the configs of most are the same empty object."""
    return Digest.of(raw).hex


def named_blobs(manifest: Manifest) -> list[NamedBlob]:
    """The blobs with a name, each name once.

    Raises:
        Invalid: a name that is no path below a directory, or that two different blobs want.
    """
    found: dict[str, NamedBlob] = {}
    for at, layer in enumerate(manifest.layers):
        name = _name(layer, f"manifest.layers[{at}]")
        if not name:
            continue
        earlier = found.setdefault(name, NamedBlob(name, layer.digest))
        if earlier.digest != layer.digest:
            raise Invalid(f"manifest.layers[{at}] name", name, "a name that no other blob has")
    for name in found:
        above = [name[:at] for at, letter in enumerate(name) if letter == "/"]
        if any(each in found for each in above):
            raise Invalid("manifest.layers name", name, "a path without a file on the way")
    return list(found.values())


def select(blobs: Iterable[NamedBlob], sub_path: str, *, artifact: str) -> list[NamedBlob]:
    """The blobs below a sub path, with names relative to it; the blob of exactly that name with an empty one.

    Raises:
        NotFound: there is nothing.
    """
    wanted = _parts(sub_path)
    found = []
    for blob in blobs:
        parts = blob.name.split("/")
        if parts[: len(wanted)] == wanted:
            found.append(NamedBlob("/".join(parts[len(wanted) :]), blob.digest))
    if not found:
        if wanted:
            raise NotFound("sub path", sub_path, f"it does not exist in OCI artifact volume {artifact}")
        raise NotFound("file", "", f"no blob of artifact {artifact} has a name; add the annotation {TITLE} to its layers")
    return found


def _name(layer: Descriptor, field: str) -> str:
    """The path that a layer's file wants, in one spelling; empty for a layer without a name."""
    key = next((key for key in _NAMES if layer.annotations.get(key)), "")
    if not key:
        return ""
    text, expected = layer.annotations[key], "a relative path of plain names, without '..'"
    parts = _parts(text)
    sound = (
        len(text.encode("utf-8", "surrogatepass")) <= _LONGEST_NAME
        and not text.startswith("/")
        and not text.endswith("/")
        and text.isprintable()
        and parts
        and all(part != ".." and len(part.encode("utf-8", "surrogatepass")) <= _LONGEST_PART for part in parts)
    )
    if not sound:
        raise Invalid(f"{field}.annotations {key}", text, expected)
    return "/".join(parts)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
