"""Images made on the spot, in pure Python: layers, configs, manifests, indexes; pushed by HTTP or written as archives.

    image = make_image([busybox_layer()], config={"Cmd": ["sh"]}, compression="zstd")
    push(registry, "library/busybox", "latest", image)

Everything is deterministic: the same arguments give the same digests.
"""

import gzip
import hashlib
import http.client
import io
import json
import tarfile  # noqa: TID251 - tests make archives, hostile ones too; only the daemon must not read them with it
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import zstandard

BUSYBOX = Path("/bin/busybox")  # Debian's busybox-static
APPLETS = (
    *(
        "sh",
        "ash",
        "cat",
        "echo",
        "env",
        "false",
        "head",
        "hostname",
        "id",
        "ip",
        "kill",
        "ls",
        "mkdir",
        "mount",
        "nc",
        "nslookup",
    ),
    *(
        "ping",
        "printf",
        "ps",
        "pwd",
        "rm",
        "sleep",
        "stat",
        "sync",
        "tail",
        "test",
        "touch",
        "true",
        "tr",
        "umount",
        "uname",
        "wc",
    ),
    *(
        "cp",
        "chmod",
        "chown",
        "date",
        "dd",
        "df",
        "find",
        "grep",
        "httpd",
        "ln",
        "mkfifo",
        "mv",
        "sed",
        "seq",
        "sort",
        "su",
        "top",
    ),
    *(
        "vi",
        "wget",
        "whoami",
        "xargs",
        "yes",
        "trap",
        "ulimit",
        "nproc",
        "readlink",
        "realpath",
        "md5sum",
        "sha256sum",
        "timeout",
    ),
)

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER_TYPES = {
    (False, "gzip"): "application/vnd.oci.image.layer.v1.tar+gzip",
    (False, "zstd"): "application/vnd.oci.image.layer.v1.tar+zstd",
    (False, "none"): "application/vnd.oci.image.layer.v1.tar",
    (True, "gzip"): "application/vnd.docker.image.rootfs.diff.tar.gzip",
    (True, "zstd"): "application/vnd.docker.image.rootfs.diff.tar.zstd",
    (True, "none"): "application/vnd.docker.image.rootfs.diff.tar",
}


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


# Layers ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One tar entry; any field may be hostile."""

    name: str
    content: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_700_000_000
    kind: bytes = tarfile.REGTYPE
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, str] = field(default_factory=dict)
    pax: Mapping[str, str] = field(default_factory=dict)


def file(name: str, content: bytes | str = b"", *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> Entry:
    return Entry(name, content.encode() if isinstance(content, str) else content, mode, uid, gid)


def directory(name: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Entry:
    return Entry(name, b"", mode, uid, gid, kind=tarfile.DIRTYPE)


def symlink(name: str, target: str) -> Entry:
    return Entry(name, mode=0o777, kind=tarfile.SYMTYPE, target=target)


def hardlink(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.LNKTYPE, target=target)


def fifo(name: str, *, mode: int = 0o644) -> Entry:
    return Entry(name, mode=mode, kind=tarfile.FIFOTYPE)


def char_device(name: str, major: int, minor: int, *, mode: int = 0o666) -> Entry:
    return Entry(name, mode=mode, kind=tarfile.CHRTYPE, device=(major, minor))


def whiteout(name: str) -> Entry:
    """Delete `name` of a lower layer."""
    head, slash, tail = name.rpartition("/")
    return Entry(f"{head}{slash}.wh.{tail}", mode=0)


def opaque(name: str) -> Entry:
    """Hide what lower layers have in the directory `name`."""
    return Entry(f"{name.rstrip('/')}/.wh..wh..opq", mode=0)


def tar_of(entries: Iterable[Entry], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of the entries, in their order, names as given."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for entry in entries:
            member = tarfile.TarInfo(entry.name)
            member.mode, member.uid, member.gid, member.mtime = entry.mode, entry.uid, entry.gid, entry.mtime
            member.type, member.linkname, member.size = entry.kind, entry.target, len(entry.content)
            member.devmajor, member.devminor = entry.device
            member.pax_headers = {**{f"SCHILY.xattr.{key}": value for key, value in entry.xattrs.items()}, **entry.pax}
            archive.addfile(member, io.BytesIO(entry.content))
    return out.getvalue()


def busybox_layer(extra: Iterable[Entry] = ()) -> bytes:
    """The tar of a small root filesystem that runs: busybox with its applets, /etc/passwd and group, empty mount points."""
    return tar_of(
        [
            *(directory(name) for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "var", "var/log")),
            directory("tmp", mode=0o1777),
            file("bin/busybox", BUSYBOX.read_bytes(), mode=0o755),
            *(symlink(f"bin/{applet}", "busybox") for applet in APPLETS),
            file(
                "etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nalice:x:1000:1000::/home:/bin/sh\n",
            ),
            file("etc/group", "root:x:0:\nnobody:x:65534:\nalice:x:1000:\nextra:x:2000:alice\n"),
            *extra,
        ]
    )


def compress(tar: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.compress(tar, 6, mtime=0)
    if compression == "zstd":
        return zstandard.ZstdCompressor(level=3).compress(tar)
    return tar


# Images ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """A layer as it travels (`blob`, `media_type`) and what it unpacks to (`diff_id`)."""

    blob: bytes
    media_type: str
    diff_id: str

    @property
    def digest(self) -> str:
        return digest_of(self.blob)

    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.blob)}


@dataclass(frozen=True)
class Image:
    """One image for one platform; `manifest` and `config` are exact bytes."""

    manifest: bytes
    media_type: str
    config: bytes
    layers: tuple[Layer, ...]
    platform: Mapping[str, str]

    @property
    def id(self) -> str:
        """The config's digest without its algorithm."""
        return hashlib.sha256(self.config).hexdigest()

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def diff_ids(self) -> list[str]:
        return [layer.diff_id for layer in self.layers]

    @property
    def blobs(self) -> dict[str, bytes]:
        return {digest_of(self.config): self.config, **{layer.digest: layer.blob for layer in self.layers}}


@dataclass(frozen=True)
class Index:
    """Several images under one name."""

    manifest: bytes
    media_type: str
    images: tuple[Image, ...]

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)


def make_layer(tar: bytes, compression: str = "gzip", *, docker: bool = False) -> Layer:
    return Layer(compress(tar, compression), LAYER_TYPES[docker, compression], digest_of(tar))


def make_image(
    layers: Sequence[bytes | Sequence[Entry] | Layer],
    *,
    compression: str = "gzip",
    docker: bool = False,
    config: Mapping[str, Any] | None = None,
    platform: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Image:
    """An image of layers given as tars, as entries or ready-made; `config` is its `config` member (Env, Cmd …)."""
    made = tuple(
        layer
        if isinstance(layer, Layer)
        else make_layer(layer if isinstance(layer, bytes) else tar_of(layer), compression, docker=docker)
        for layer in layers
    )
    runs_on = dict(platform or {"os": "linux", "architecture": "amd64"})
    document = {
        **runs_on,
        "created": "2026-01-01T00:00:00Z",
        "config": dict(config or {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]}),
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in made]},
        "history": [{"created_by": "tests"} for _ in made],
    }
    config_bytes = json.dumps(document, sort_keys=True).encode()
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    manifest = manifest_of(config_bytes, made, media_type=media_type, annotations=annotations)
    return Image(manifest, media_type, config_bytes, made, runs_on)


def manifest_of(
    config: bytes, layers: Sequence[Layer], *, media_type: str = OCI_MANIFEST, annotations: Mapping[str, str] | None = None
) -> bytes:
    config_type = DOCKER_CONFIG if media_type == DOCKER_MANIFEST else OCI_CONFIG
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": config_type, "digest": digest_of(config), "size": len(config)},
        "layers": [layer.descriptor() for layer in layers],
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return json.dumps(document).encode()


def make_index(images: Sequence[Image], *, docker: bool = False, attestation: bool = False) -> Index:
    """An index of images for several platforms; `attestation` adds an unknown/unknown entry first, as buildx does."""
    entries = [
        {"mediaType": image.media_type, "digest": image.digest, "size": len(image.manifest), "platform": dict(image.platform)}
        for image in images
    ]
    if attestation:
        entries.insert(0, {**entries[0], "platform": {"os": "unknown", "architecture": "unknown"}})
    media_type = DOCKER_LIST if docker else OCI_INDEX
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
    return Index(json.dumps(document).encode(), media_type, tuple(images))


def busybox_image(**options: Any) -> Image:
    """The image most tests want."""
    return make_image([busybox_layer()], **options)


# Push -----------------------------------------------------------------------------------------------------------------


class Target(Protocol):
    """A registry to push to: `tests/support/registry.py` has one."""

    @property
    def url(self) -> str: ...
    def push_headers(self, repository: str) -> dict[str, str]: ...
    def connect(self) -> http.client.HTTPConnection: ...


def push(registry: Target, repository: str, tag: str, image: Image | Index) -> str:
    """Push an image or index by the registry's HTTP API; returns the manifest's digest."""
    headers = registry.push_headers(repository)
    connection = registry.connect()
    try:
        for part in image.images if isinstance(image, Index) else (image,):
            for digest, content in part.blobs.items():
                _push_blob(connection, repository, digest, content, headers)
            _put_manifest(connection, repository, part.digest, part.media_type, part.manifest, headers)
        _put_manifest(connection, repository, tag, image.media_type, image.manifest, headers)
    finally:
        connection.close()
    return image.digest


def push_blob(registry: Target, repository: str, content: bytes) -> str:
    """Push one blob alone; returns its digest."""
    connection = registry.connect()
    try:
        _push_blob(connection, repository, digest_of(content), content, registry.push_headers(repository))
    finally:
        connection.close()
    return digest_of(content)


def push_manifest(registry: Target, repository: str, tag: str, media_type: str, manifest: bytes) -> str:
    """Push a manifest alone, whatever it says; returns its digest."""
    connection = registry.connect()
    try:
        _put_manifest(connection, repository, tag, media_type, manifest, registry.push_headers(repository))
    finally:
        connection.close()
    return digest_of(manifest)


def _push_blob(
    connection: http.client.HTTPConnection, repository: str, digest: str, content: bytes, headers: dict[str, str]
) -> None:
    status, _ = _call(connection, "HEAD", f"/v2/{repository}/blobs/{digest}", headers)
    if status == 200:
        return
    status, answer = _call(connection, "POST", f"/v2/{repository}/blobs/uploads/", headers)
    assert status == 202, f"upload not started: {status}"
    place = urlsplit(answer["location"])
    path = f"{place.path}?{place.query + '&' if place.query else ''}digest={digest}"
    status, _ = _call(connection, "PUT", path, {**headers, "Content-Type": "application/octet-stream"}, content)
    assert status == 201, f"blob not stored: {status}"


def _put_manifest(
    connection: http.client.HTTPConnection, repository: str, tag: str, media_type: str, manifest: bytes, headers: dict[str, str]
) -> None:
    status, _ = _call(connection, "PUT", f"/v2/{repository}/manifests/{tag}", {**headers, "Content-Type": media_type}, manifest)
    assert status == 201, f"manifest not stored: {status}"


def _call(
    connection: http.client.HTTPConnection, method: str, path: str, headers: dict[str, str], body: bytes | None = None
) -> tuple[int, dict[str, str]]:
    connection.request(method, path, body=body, headers=headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}


# Archives -------------------------------------------------------------------------------------------------------------


def write_oci_layout(path: Path, images: Mapping[str, Image | Index]) -> Path:
    """An OCI layout directory with one index entry per name (`org.opencontainers.image.ref.name`)."""
    for name, content in _layout_files(images).items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return path


def write_oci_archive(path: Path, images: Mapping[str, Image | Index]) -> Path:
    path.write_bytes(tar_of(file(name, content) for name, content in _layout_files(images).items()))
    return path


def write_docker_archive(path: Path, images: Mapping[str, Image]) -> Path:
    """What `docker save` writes: manifest.json, configs by id, plain layer tars; names are full tags (`repo:tag`)."""
    files: dict[str, bytes] = {}
    listed = []
    for name, image in images.items():
        files[f"{image.id}.json"] = image.config
        paths = []
        for layer in image.layers:
            paths.append(f"{layer.diff_id.removeprefix('sha256:')}/layer.tar")
            files[paths[-1]] = decompress(layer)
        listed.append({"Config": f"{image.id}.json", "RepoTags": [name], "Layers": paths})
    files["manifest.json"] = json.dumps(listed).encode()
    path.write_bytes(tar_of(file(name, content) for name, content in files.items()))
    return path


def decompress(layer: Layer) -> bytes:
    if layer.media_type.endswith("gzip"):
        return gzip.decompress(layer.blob)
    if layer.media_type.endswith("zstd"):
        return zstandard.ZstdDecompressor().decompress(layer.blob)
    return layer.blob


def _layout_files(images: Mapping[str, Image | Index]) -> dict[str, bytes]:
    blobs: dict[str, bytes] = {}
    entries = []
    for name, image in images.items():
        for part in image.images if isinstance(image, Index) else (image,):
            blobs |= {**part.blobs, part.digest: part.manifest}
        blobs[image.digest] = image.manifest
        entries.append(
            {
                "mediaType": image.media_type,
                "digest": image.digest,
                "size": len(image.manifest),
                "annotations": {"org.opencontainers.image.ref.name": name},
            }
        )
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    files["index.json"] = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    return files | {f"blobs/{digest.replace(':', '/')}": content for digest, content in blobs.items()}
