"""Image manifests, indexes and configs as typed values, from bytes that anybody may have made.

    decode_manifest(raw, content_type) -> Manifest | Index      decode_config(raw) -> ImageConfig

Two dialects mean the same here: OCI image-spec v1 and docker's schema 2. The caps below come before everything else; a
document with two meanings (both `layers` and `manifests`, a media type that contradicts the header, keys twice or in other
case) is refused, so what a policy judged is what is used. `urls` and `data` of descriptors are ignored: blobs come from the
registry of the reference and from nowhere else.

Source: OCI image-spec v1.1 (manifest.md, image-index.md, config.md); distribution's manifest-v2-2.md.
"""

from typing import Annotated, Any, Final

import msgspec

from criollo.errors import Invalid, Unsupported
from criollo.oci import document
from criollo.oci.digest import Digest
from criollo.oci.platform import Platform

MAX_MANIFEST_BYTES: Final = 4 << 20
MAX_CONFIG_BYTES: Final = 4 << 20
MAX_BLOB_BYTES: Final = 64 << 30  # of a layer as it travels; unpacked it may have no more
MAX_LAYERS: Final = 1000
MAX_INDEX_ENTRIES: Final = 1000
MAX_INDEX_DEPTH: Final = 2

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_FOREIGN_LAYER: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_FOREIGN_LAYER: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"
DOCKER_SCHEMA1: Final = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"

INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
ACCEPT: Final = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
_CONFIG_TYPES: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})
_SCHEMA1_TYPES: Final = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})
# What servers say that do not know better; the document then speaks for itself.
_NO_TYPE: Final = frozenset({"", "application/json", "application/octet-stream", "text/plain", "binary/octet-stream"})

_COMPRESSIONS: Final = {
    **{base: "none" for base in (OCI_LAYER, OCI_FOREIGN_LAYER, DOCKER_LAYER, DOCKER_FOREIGN_LAYER)},
    **{f"{base}+gzip": "gzip" for base in (OCI_LAYER, OCI_FOREIGN_LAYER)},
    **{f"{base}+zstd": "zstd" for base in (OCI_LAYER, OCI_FOREIGN_LAYER)},
    **{f"{base}.gzip": "gzip" for base in (DOCKER_LAYER, DOCKER_FOREIGN_LAYER)},
    **{f"{base}.zstd": "zstd" for base in (DOCKER_LAYER, DOCKER_FOREIGN_LAYER)},
}

_Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class NotAnImage(Unsupported):
    """A sound manifest of something else: an artifact. Its config type says of what."""


class Descriptor(msgspec.Struct, frozen=True, kw_only=True):
    """What a document points to: its type, digest and size in bytes (as it travels)."""

    media_type: str = msgspec.field(name="mediaType")
    digest: Digest
    size: _Size
    annotations: dict[str, str] = {}
    platform: Platform | None = None

    @property
    def is_foreign(self) -> bool:
        """A layer whose makers did not allow every registry to hand it out; a registry may lack it."""
        return self.media_type.startswith((OCI_FOREIGN_LAYER, DOCKER_FOREIGN_LAYER))


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One image for one platform: its config and its layers, bottom first; or an artifact: its blobs, in any order."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] = {}
    artifact_type: str = ""  # of what, when it is no image


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """Manifests (or further indexes) for several platforms."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: dict[str, str] = {}


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """How a container of the image runs unless told otherwise; wishes of the image's author, never orders."""

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    stop_signal: str = ""
    volumes: dict[str, Any] = {}
    exposed_ports: dict[str, Any] = {}
    labels: dict[str, str] = {}


class RootFs(msgspec.Struct, frozen=True, kw_only=True):
    """The digests of the uncompressed layers, bottom first."""

    type: str = "layers"
    diff_ids: tuple[Digest, ...] = ()


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """An image's config; the digest of its bytes is the image id."""

    os: str = "linux"
    architecture: str = ""
    variant: str = ""
    created: str = ""
    author: str = ""
    config: RunConfig = RunConfig()
    rootfs: RootFs

    @property
    def platform(self) -> Platform:
        return Platform.normal(self.os, self.architecture, self.variant)


_DESCRIPTOR_KEYS: Final = ("mediaType", "digest", "size", "urls", "data", "annotations", "platform", "artifactType")
_MANIFEST_KEYS: Final = (
    "schemaVersion",
    "mediaType",
    "config",
    "layers",
    "manifests",
    "annotations",
    "subject",
    "artifactType",
)
_CONFIG_KEYS: Final = ("os", "architecture", "variant", "config", "rootfs", "history", "created", "author")
_ROOTFS_KEYS: Final = ("type", "diff_ids")
_RUN_KEYS: Final = (
    *("User", "Env", "Entrypoint", "Cmd", "WorkingDir", "StopSignal", "Volumes", "ExposedPorts", "Labels"),
    *("ArgsEscaped", "Healthcheck", "OnBuild", "Shell"),
)


def decode_manifest(raw: bytes, media_type: str = "", *, artifacts: bool = False) -> Manifest | Index:
    """The manifest or index in `raw`; `media_type` is what the source called it (empty if it did not).

    Raises:
        Invalid: malformed, over a cap, or of two meanings.
        NotAnImage: a manifest whose config is no image config, unless `artifacts` are welcome.
        Unsupported: docker's schema 1, or a media type of something else.
    """
    said = media_type.partition(";")[0].strip().lower()
    if said in _SCHEMA1_TYPES:
        raise _schema1()
    value = document.parse_object(raw, what="manifest", limit_bytes=MAX_MANIFEST_BYTES)
    document.refuse_case_twins(value, _MANIFEST_KEYS, what="manifest")
    kind = _kind(value, said)
    if kind in INDEX_TYPES:
        entries = _descriptors(value, "manifests", MAX_INDEX_ENTRIES)
        return Index(media_type=kind, manifests=entries, annotations=_annotations(value))
    if not isinstance(value.get("config"), dict):
        raise Invalid("manifest.config", value.get("config"), "a descriptor")
    config = _descriptor(value["config"], "manifest.config")
    artifact_type = "" if config.media_type in _CONFIG_TYPES else _artifact_type(value, config)
    if artifact_type and not artifacts:
        raise NotAnImage(f"cannot use the manifest as an image: its config is of type {config.media_type!r}; it is an artifact")
    layers = _descriptors(value, "layers", MAX_LAYERS)
    return Manifest(media_type=kind, config=config, layers=layers, annotations=_annotations(value), artifact_type=artifact_type)


def decode_config(raw: bytes) -> ImageConfig:
    """The image config in `raw`. A null counts as absent, as docker writes it.

    Raises:
        Invalid: a field has the wrong type; the message names it.
    """
    value = document.parse_object(raw, what="image config", limit_bytes=MAX_CONFIG_BYTES)
    document.refuse_case_twins(value, _CONFIG_KEYS, what="image config")
    document.refuse_case_twins(value.get("config"), _RUN_KEYS, what="image config.config")
    document.refuse_case_twins(value.get("rootfs"), _ROOTFS_KEYS, what="image config.rootfs")
    config = document.convert(document.without_nulls(value, "config", "rootfs"), ImageConfig, what="image config")
    if config.rootfs.type != "layers":
        raise Invalid("image config.rootfs.type", config.rootfs.type, "'layers'")
    if len(config.rootfs.diff_ids) > MAX_LAYERS:
        raise Invalid("image config.rootfs.diff_ids", f"{len(config.rootfs.diff_ids)} layers", f"at most {MAX_LAYERS}")
    _refuse_nul(config.config)
    return config


def check_layers(manifest: Manifest, config: ImageConfig) -> None:
    """Refuse an image whose manifest and config disagree on the number of layers, and a layer without end."""
    for at, layer in enumerate(manifest.layers):
        if layer.size > MAX_BLOB_BYTES:
            raise Invalid(f"manifest.layers[{at}].size", layer.size, f"at most {MAX_BLOB_BYTES} bytes")
    layers, diff_ids = len(manifest.layers), len(config.rootfs.diff_ids)
    if layers != diff_ids:
        raise Invalid("image config.rootfs.diff_ids", f"{diff_ids} entries", f"{layers}, one for each layer of the manifest")


def compression_of(media_type: str) -> str:
    """How a layer of this type is compressed: `gzip`, `zstd` or `none`.

    Raises:
        Unsupported: no layer type we read.
    """
    found = _COMPRESSIONS.get(media_type)
    if found is None:
        raise Unsupported(f"cannot unpack a layer of type {media_type!r}: only tar, plain or by gzip or zstd, is read")
    return found


def _kind(value: dict[str, Any], said: str) -> str:
    """The media type of a document, from what its source said, what it says itself, and its shape: they must agree."""
    if value.get("schemaVersion") == 1 and not isinstance(value.get("schemaVersion"), bool):
        raise _schema1()
    if value.get("schemaVersion") != 2 or isinstance(value.get("schemaVersion"), float):
        raise Invalid("manifest.schemaVersion", value.get("schemaVersion"), "2")
    own = value.get("mediaType", "")
    if not isinstance(own, str):
        raise Invalid("manifest.mediaType", own, "a string")
    said = "" if said in _NO_TYPE else said
    if said and own and said != own:
        raise Invalid("manifest.mediaType", own, f"{said}, which its source says it is")
    if "manifests" in value and ("layers" in value or "config" in value):
        raise Invalid("manifest", "both a manifest and an index", "one of them")
    kind = said or own or (OCI_INDEX if "manifests" in value else OCI_MANIFEST)
    if kind not in INDEX_TYPES | MANIFEST_TYPES:
        raise Unsupported(
            f"cannot use a document of type {kind!r}: only OCI and docker schema 2 manifests and indexes are read"
        )
    if (kind in INDEX_TYPES) != ("manifests" in value):
        raise Invalid("manifest", "an index" if "manifests" in value else "a manifest", f"a document of type {kind}")
    return kind


def _descriptors(value: dict[str, Any], field: str, cap: int) -> tuple[Descriptor, ...]:
    entries = value.get(field)
    if not isinstance(entries, list):
        raise Invalid(f"manifest.{field}", entries, "a list of descriptors")
    if len(entries) > cap:
        raise Invalid(f"manifest.{field}", f"{len(entries)} entries", f"at most {cap}")
    return tuple(_descriptor(entry, f"manifest.{field}[{at}]") for at, entry in enumerate(entries))


def _descriptor(value: object, what: str) -> Descriptor:
    if not isinstance(value, dict):
        raise Invalid(what, type(value).__name__, "a descriptor")
    document.refuse_case_twins(value, _DESCRIPTOR_KEYS, what=what)
    plain = document.without_nulls(value, "platform")
    platform = plain.pop("platform", None)
    found = document.convert(plain, Descriptor, what=what)
    if platform is None:
        return found
    said = document.convert(
        {"os": "", "architecture": "", **platform} if isinstance(platform, dict) else platform,
        Platform,
        what=f"{what}.platform",
    )
    if not (said.os or said.architecture):
        return found
    return msgspec.structs.replace(found, platform=Platform.normal(said.os, said.architecture, said.variant))


def _annotations(value: dict[str, Any]) -> dict[str, str]:
    return document.convert(value.get("annotations") or {}, dict[str, str], what="manifest.annotations")


def _artifact_type(value: dict[str, Any], config: Descriptor) -> str:
    """What an artifact is of: its own word, else its config's. Source: OCI image-spec v1.1, manifest.md, artifact usage."""
    said = value.get("artifactType") or ""
    if not isinstance(said, str):
        raise Invalid("manifest.artifactType", said, "a string")
    return said or config.media_type or "unknown"


def _refuse_nul(config: RunConfig) -> None:
    """No program, path or variable can hold a NUL; a runtime would cut it there."""
    texts = {
        "User": (config.user,),
        "Env": config.env,
        "Entrypoint": config.entrypoint,
        "Cmd": config.cmd,
        "WorkingDir": (config.working_dir,),
        "Volumes": config.volumes,
    }
    for field, values in texts.items():
        for text in values:
            if "\0" in text:
                raise Invalid(f"image config.config.{field}", text, "text without NUL")


def _schema1() -> Unsupported:
    return Unsupported(
        "cannot use a manifest of docker's schema 1: it is no longer read; "
        "push the image again with a current tool, or convert it with `skopeo copy --format v2s2`"
    )
