"""Images: rows in images.db, records in memory. An image becomes visible by one transaction."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from criollo.errors import Damaged
from criollo.model.ids import ImageId
from criollo.model.image import Image
from criollo.state.database import Database, damage
from criollo.state.signatures import Signatures
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

# Not in images.sql: databases of earlier versions get the table, too.
_UNFLUSHED: Final = """
CREATE TABLE IF NOT EXISTS unflushed (
  layer TEXT PRIMARY KEY,         -- its files may not be on the disk yet
  boot TEXT NOT NULL              -- the boot that wrote them: in another one they are not to be relied on
) STRICT, WITHOUT ROWID
"""

_HEX, _PLAIN = re.compile(r"[0-9a-f]{64}"), re.compile(r"[!-~]+")
_LAYER: Final = re.compile(r"[0-9a-f]{32}|empty")  # storage.layers
# What clients are told, and what paths are made of: how it must look.
_NAMES: Final = {
    "SELECT id FROM image": _HEX,
    "SELECT manifest_digest FROM image": _PLAIN,
    "SELECT name FROM reference": _PLAIN,
    "SELECT image_id FROM reference": _HEX,
    "SELECT name FROM layer": _LAYER,
    "SELECT diff_id FROM layer": _PLAIN,
    "SELECT layer FROM image_layer": _LAYER,
}


class LayerRow(NamedTuple):
    """An unpacked layer in the store; sizes in bytes."""

    name: str
    diff_id: str
    size_bytes: int
    inodes: int
    boot: str = ""  # the boot it was written in, until it is known to be on the disk


class ImageRows:
    """All images and layers that are whole."""

    def __init__(self, path: Path, *, make_room: Callable[[], bool] = lambda: False) -> None:
        self._database = Database(path, "images.sql", make_room=make_room)
        self.path = path
        self._images: dict[str, Image] = {}
        self._references: dict[str, ImageId] = {}
        try:
            self.signatures = Signatures(self._database)
            self._read()
        except BaseException:
            self._database.let_go()
            raise

    def _read(self) -> None:
        self._database.execute(_UNFLUSHED)
        boots = dict(self._database.query("SELECT layer, boot FROM unflushed"))
        rows = [LayerRow(*row) for row in self._database.query("SELECT * FROM layer")]
        self._layers = {row.name: row._replace(boot=boots.get(row.name, "")) for row in rows}
        self._refuse_garbled()
        for (image_id,) in self._database.query("SELECT id FROM image"):
            self._reload(ImageId(image_id))

    def _refuse_garbled(self) -> None:
        """Damage that SQLite does not see, in what clients are told and paths are made of.

        Raises:
            Damaged: a name is none of ours.
        """
        for sql, form in _NAMES.items():
            for (name,) in self._database.query(sql):
                if not form.fullmatch(name):
                    raise Damaged(damage(self.path, f"a name in it is {name!r}"))

    def get(self, image_id: str) -> Image | None:
        return self._images.get(image_id)

    def by_reference(self, name: str) -> Image | None:
        """`name` in full: docker.io/library/busybox:latest or docker.io/library/busybox@sha256:…"""
        found = self._references.get(name)
        return None if found is None else self._images[found]

    def by_prefix(self, prefix: str) -> list[Image]:
        return [image for image_id, image in self._images.items() if image_id.startswith(prefix)]

    def all(self) -> list[Image]:
        return list(self._images.values())

    def layer(self, name: str) -> LayerRow | None:
        return self._layers.get(name)

    def layers(self) -> list[LayerRow]:
        return list(self._layers.values())

    def add_layer(self, layer: LayerRow) -> None:
        """Say that the layer's directory is whole."""
        run, (*columns, boot) = self._database.execute, layer
        with self._database.transaction():
            run("INSERT OR REPLACE INTO layer VALUES (?, ?, ?, ?)", *columns)
            run("DELETE FROM unflushed WHERE layer = ?", layer.name)
            if boot:
                run("INSERT INTO unflushed VALUES (?, ?)", layer.name, boot)
        self._layers[layer.name] = layer

    def flushed(self, names: Iterable[str]) -> None:
        """Say that layers are on the disk. Raises Exhausted: it is too full to note it."""
        rows = [row._replace(boot="") for row in map(self.layer, names) if row is not None]
        with self._database.transaction(can_wait=True):
            for row in rows:
                self._database.execute("DELETE FROM unflushed WHERE layer = ?", row.name)
        self._layers.update((row.name, row) for row in rows)

    def add(self, image: Image) -> Image:
        """Make an image visible, or add its names to the one that is there; names move from other images to it.

        All of `image.layers` must have rows. Returns the image as it is now.
        """
        run = self._database.execute
        with self._database.transaction():
            row = (image.id, image.manifest_digest, image.manifest, image.config, image.size_bytes, image.pulled_ns)
            run("INSERT OR IGNORE INTO image VALUES (?, ?, ?, ?, ?, ?, 0, '{}')", *row)
            run(
                "UPDATE image SET pinned = ?, annotations = ? WHERE id = ?",
                int(image.pinned),
                msgspec.json.encode(image.annotations).decode(),
                image.id,
            )
            for position, layer in enumerate(image.layers):
                run("INSERT OR IGNORE INTO image_layer VALUES (?, ?, ?)", image.id, position, layer)
            for name, is_digest in (*((n, 0) for n in image.names), *((n, 1) for n in image.digests)):
                run("INSERT OR REPLACE INTO reference VALUES (?, ?, ?)", name, image.id, is_digest)
        losers = {self._references[name] for name in (*image.names, *image.digests) if name in self._references}
        for image_id in {*losers, image.id}:
            self._reload(image_id)
        return self._images[image.id]

    def untag(self, names: Iterable[str]) -> None:
        """Forget references; their images stay."""
        names = [name for name in names if name in self._references]
        with self._database.transaction():
            for name in names:
                self._database.execute("DELETE FROM reference WHERE name = ?", name)
        for image_id in {self._references[name] for name in names}:
            self._reload(image_id)

    def remove(self, image_id: ImageId) -> None:
        """Forget an image with its references; its layers keep their rows until `drop_layers`."""
        with self._database.transaction():
            for table, column in (("reference", "image_id"), ("image_layer", "image_id"), ("image", "id")):
                self._database.execute(f"DELETE FROM {table} WHERE {column} = ?", image_id)  # noqa: S608
            self.signatures.forget(image_id)
        self._reload(image_id)

    def by_manifest(self, digest: str) -> Image | None:
        """An image that came by the manifest of this digest."""
        return next((image for image in self._images.values() if image.manifest_digest == digest), None)

    def is_used(self, layer: str) -> bool:
        """Whether an image has the layer."""
        return any(layer in image.layers for image in self._images.values())

    def unreferenced_layers(self) -> list[str]:
        """Layers that no image has, topmost use irrelevant: each name is free to go."""
        used = {layer for image in self._images.values() for layer in image.layers}
        return [name for name in self._layers if name not in used]

    def drop_layers(self, names: Iterable[str]) -> None:
        """Forget layers that no image has; before their directories go."""
        names = list(names)
        with self._database.transaction():
            for name in names:
                self._database.execute("DELETE FROM layer WHERE name = ?", name)
                self._database.execute("DELETE FROM unflushed WHERE layer = ?", name)
        for name in names:
            self._layers.pop(name, None)

    def flush(self) -> None:
        """As `Database.flush`."""
        self._database.flush()

    def close(self) -> None:
        self._database.close()

    def _reload(self, image_id: ImageId) -> None:
        """Bring memory in line with the rows of one image."""
        for name in [name for name, owner in self._references.items() if owner == image_id]:
            del self._references[name]
        rows = self._database.query("SELECT * FROM image WHERE id = ?", image_id)
        if not rows:
            self._images.pop(image_id, None)
            return
        _, manifest_digest, manifest, config, size, pulled, pinned, annotations = rows[0]
        references = self._database.query("SELECT name, is_digest FROM reference WHERE image_id = ? ORDER BY name", image_id)
        layers = self._database.query("SELECT layer FROM image_layer WHERE image_id = ? ORDER BY position", image_id)
        self._references.update({name: image_id for name, _ in references})
        self._images[image_id] = Image(
            id=image_id,
            names=tuple(name for name, is_digest in references if not is_digest),
            digests=tuple(name for name, is_digest in references if is_digest),
            manifest_digest=manifest_digest,
            manifest=manifest,
            config=config,
            layers=tuple(layer for (layer,) in layers),
            size_bytes=size,
            pulled_ns=pulled,
            pinned=bool(pinned),
            annotations=_annotations(image_id, annotations),
        )


def _annotations(image_id: str, text: str) -> dict[str, str]:
    """What the image was asked for with; an unreadable text costs the image nothing else."""
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.MsgspecError, ValueError) as error:
        log.warning("annotations of an image are unreadable", image=image_id, error=error)
        return {}
