"""The image room without a daemon: rows, layers and what the verbs keep, in a directory of the test."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from support import images as made

from criollo.aio import threads
from criollo.images.commit import Blob, plan
from criollo.images.context import Images
from criollo.model.ids import ImageId
from criollo.model.image import Image
from criollo.oci.digest import Digest
from criollo.oci.image_spec import Manifest, decode_manifest
from criollo.registry.client import Registry
from criollo.registry.hosts import Hosts
from criollo.state.images import ImageRows, LayerRow
from criollo.storage.layers import Layers
from criollo.trust.judge import Judge
from criollo.trust.policies import Policies
from criollo.trust.policy import Policy
from criollo.workers.pool import Workers

NOT_NEEDED = cast(Any, None)


@contextlib.contextmanager
def image_store(root: Path, *, workers: Workers = NOT_NEEDED) -> Iterator[Images]:
    """`images.layers.open()` is the test's to await."""
    rows, layers = ImageRows(root / "images.db"), Layers(root)
    try:
        yield Images(rows, layers, roots=NOT_NEEDED, workers=workers, registry=Registry(Hosts(), user_agent="test"))
    finally:
        layers.close()
        rows.close()
        threads.close()


def run(root: Path, body: Callable[[Images], Coroutine[object, object, None]]) -> None:
    """`body(images)` on a loop of its own, the layers opened."""
    with image_store(root) as images:

        async def inside() -> None:
            await images.layers.open()
            await body(images)

        asyncio.run(inside())


def run_judged(root: Path, policy: dict[str, Any], body: Callable[[Images], Coroutine[object, object, None]]) -> None:
    """`run` with workers, and a policy that images are judged by."""

    async def inside(images: Images) -> None:
        async with images.workers:
            await images.layers.open()
            parsed = Policy.parse(json.dumps(policy).encode(), where="test policy")
            images.judge = Judge(Policies.of(parsed), scratch=root / "scratch")
            await body(images)

    with image_store(root, workers=Workers()) as images:
        asyncio.run(inside(images))


def add_image(
    images: Images,
    image_id: str,
    *,
    names: Sequence[str] = (),
    digests: Sequence[str] = (),
    layers: Sequence[str] = (),
    config: bytes = b"{}",
) -> Image:
    """A record with its rows; `layers` are names, whose directories the test makes or not."""
    for name in layers:
        images.rows.add_layer(LayerRow(name, "sha256:" + "0" * 64, 10, 2))
    return images.rows.add(
        Image(
            id=ImageId(image_id),
            names=tuple(names),
            digests=tuple(digests),
            manifest_digest=str(Digest.of(image_id.encode())),
            manifest=b"{}",
            config=config,
            layers=tuple(layers),
            size_bytes=0,
            pulled_ns=1,
        )
    )


def planned(image: made.Image) -> list[Blob]:
    manifest = decode_manifest(image.manifest, image.media_type)
    assert isinstance(manifest, Manifest)
    return plan(manifest, image.config)
