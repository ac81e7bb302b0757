"""Coverage-guided fuzzing of manifests, indexes and image configs.

    python3 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris msgspec
    mkdir -p /tmp/corpus && PYTHONPATH=src /tmp/fuzz/bin/python tests/fuzz/manifests.py -max_total_time=300 /tmp/corpus

What must hold: nothing but `Invalid`, `Unsupported` and `NotFound`; sizes and numbers within their caps; no NUL in what is run.
"""

import contextlib
import json
import sys
from typing import Any

import atheris

with atheris.instrument_imports(include=["criollo.oci.image_spec", "criollo.oci.document", "criollo.oci.platform"]):
    from criollo.oci import image_spec
    from criollo.oci.platform import host_platform, select
from criollo.errors import Invalid, NotFound, Unsupported

DIGEST = "sha256:" + "a" * 64
TYPES = [
    image_spec.OCI_MANIFEST,
    image_spec.OCI_INDEX,
    image_spec.OCI_CONFIG,
    image_spec.DOCKER_LIST,
    image_spec.DOCKER_MANIFEST,
]
TYPES += [image_spec.DOCKER_CONFIG, image_spec.OCI_LAYER, f"{image_spec.OCI_LAYER}+gzip", "application/json", "x/y", ""]
WORDS = [*TYPES, DIGEST, "linux", "amd64", "v8", "layers", "\0"]
WORDS += (
    "mediaType digest size urls data annotations platform schemaVersion config layers manifests subject artifactType".split()
)
WORDS += "os architecture variant rootfs type diff_ids User Env Entrypoint Cmd WorkingDir Volumes Labels USER MediaType".split()
ODD = [None, True, False, 2, 2.0, 1 << 63, 1 << 70, -1, float("nan"), 1e300]


def descriptor(kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "digest": DIGEST, "size": 3}


def value(source: atheris.FuzzedDataProvider, depth: int) -> Any:
    match source.ConsumeIntInRange(0, 9):
        case 0 | 1 | 2:
            return source.PickValueInList(WORDS)
        case 3:
            return source.PickValueInList(ODD)
        case 4:
            return source.ConsumeUnicode(5)
        case 5 | 6 if depth:
            return [value(source, depth - 1) for _ in range(source.ConsumeIntInRange(0, 3))]
        case 7:
            return descriptor(source.PickValueInList(TYPES))
        case _ if depth:
            return {source.PickValueInList(WORDS): value(source, depth - 1) for _ in range(source.ConsumeIntInRange(0, 4))}
    return DIGEST


def document(source: atheris.FuzzedDataProvider) -> bytes:
    """A sound document with some changes somewhere in it."""
    config = descriptor(image_spec.OCI_CONFIG)
    entry = {**descriptor(image_spec.OCI_MANIFEST), "platform": {"os": "linux", "architecture": "amd64"}}
    sound: dict[str, Any] = [
        {"schemaVersion": 2, "config": config, "layers": [descriptor(image_spec.OCI_LAYER)]},
        {"schemaVersion": 2, "manifests": [entry]},
        {"os": "linux", "config": {"Env": ["a=b"]}, "rootfs": {"type": "layers", "diff_ids": [DIGEST]}},
    ][source.ConsumeIntInRange(0, 2)]
    for _ in range(source.ConsumeIntInRange(0, 4)):
        at: Any = sound
        for _ in range(source.ConsumeIntInRange(0, 2)):
            inner = [each for each in (at.values() if isinstance(at, dict) else at) if isinstance(each, dict | list)]
            at = source.PickValueInList(inner) if inner else at
        if isinstance(at, dict):
            at[source.PickValueInList(WORDS)] = value(source, 3)
        else:
            at.append(value(source, 3))
    return json.dumps(sound).encode("utf-8", "surrogatepass")


def one(octets: bytes) -> None:
    source = atheris.FuzzedDataProvider(octets)
    said, artifacts = source.PickValueInList(TYPES), source.ConsumeBool()
    raw = source.ConsumeBytes(600) if source.ConsumeIntInRange(0, 9) == 0 else document(source)
    with contextlib.suppress(Invalid):
        run = image_spec.decode_config(raw).config
        assert not any("\0" in text for text in (run.user, *run.env, *run.entrypoint, *run.cmd, run.working_dir, *run.volumes))
    with contextlib.suppress(Invalid, Unsupported, NotFound):
        found = image_spec.decode_manifest(raw, said, artifacts=artifacts)
        if isinstance(found, image_spec.Index):
            assert len(found.manifests) <= image_spec.MAX_INDEX_ENTRIES
            assert select(host_platform(), found.manifests) in found.manifests
            return
        assert len(found.layers) <= image_spec.MAX_LAYERS
        for each in (found.config, *found.layers):
            assert 0 <= each.size < 1 << 63
            image_spec.compression_of(each.media_type)


atheris.Setup(sys.argv, one)
atheris.Fuzz()
