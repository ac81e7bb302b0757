"""OCI artifacts made on the spot: files with names under one manifest, pushed to a registry.

push_artifact(registry, "team/model", "v1", {"weights.bin": b"...", "conf/a.json": b"{}"})
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from support.images import OCI_MANIFEST, Target, digest_of, push_blob, push_manifest

EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"


@dataclass(frozen=True)
class Artifact:
    """`manifest` is exact bytes, `blobs` all that it points to."""

    manifest: bytes
    blobs: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def id(self) -> str:
        return self.digest.removeprefix("sha256:")


def make_artifact(
    files: Mapping[str, bytes] | Sequence[tuple[str, bytes]],
    *,
    artifact_type: str = "application/vnd.example.thing",
    config: bytes = b"{}",
    config_type: str = EMPTY_TYPE,
    key: str = TITLE,
) -> Artifact:
    """An artifact whose files have these names, by the annotation `key`; no name, no annotation."""
    pairs = list(files.items()) if isinstance(files, Mapping) else list(files)
    layers = [
        {
            "mediaType": "application/octet-stream",
            "digest": digest_of(content),
            "size": len(content),
            **({"annotations": {key: name}} if name else {}),
        }
        for name, content in pairs
    ]
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": config_type, "digest": digest_of(config), "size": len(config)},
        "layers": layers,
    }
    if artifact_type:
        document["artifactType"] = artifact_type
    return Artifact(json.dumps(document).encode(), (config, *(content for _, content in pairs)))


def push_artifact(registry: Target, repository: str, tag: str, artifact: Artifact) -> str:
    """Push it; returns the manifest's digest."""
    for content in artifact.blobs:
        push_blob(registry, repository, content)
    return push_manifest(registry, repository, tag, OCI_MANIFEST, artifact.manifest)
