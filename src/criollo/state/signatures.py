"""Signatures of images, kept beside them in images.db: what proved at the pull where an image comes from proves it again later.

An image may have come by several manifests with one config; each has its own signatures. Blobs stay on the disk, memory knows
which there are.
"""

from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from criollo.errors import Damaged
from criollo.oci.signature import MAX_SIGNATURES
from criollo.state.database import Database, damage

MAX_MANIFESTS: Final = 16  # of one image; the oldest give way
MAX_BLOBS: Final = MAX_SIGNATURES  # of one manifest; more than that, and the new ones replace the old

# Not in images.sql: databases from before there were signatures get the table too.
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS signature (
  image_id TEXT NOT NULL,
  manifest_digest TEXT NOT NULL,  -- sha256 of a manifest whose config is the image's
  fingerprint TEXT NOT NULL,      -- sha256 of the blob
  blob BLOB NOT NULL,             -- as containers/image stores one
  kept_ns INTEGER NOT NULL,
  PRIMARY KEY (image_id, manifest_digest, fingerprint)
) STRICT, WITHOUT ROWID
"""


class Signatures:
    """The signatures in one database of images."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.execute(_TABLE)
        for row in database.query("SELECT image_id, manifest_digest, fingerprint FROM signature"):
            if not all(text.isascii() for text in row):
                raise Damaged(damage(database.path, "a signature in it has no name"))
        database.execute("DELETE FROM signature WHERE image_id NOT IN (SELECT id FROM image)")
        self._known: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for (image_id,) in database.query("SELECT DISTINCT image_id FROM signature"):
            self._reload(image_id)

    def fingerprints(self, image_id: str) -> tuple[str, ...]:
        """What changes when an image's signatures do."""
        return tuple(f"{manifest} {text}" for manifest, text in self._known.get(image_id, {}).items())

    def of(self, image_id: str) -> list[tuple[str, tuple[bytes, ...]]]:
        """The manifests of an image that have signatures, the newest first, and the blobs of those."""
        if image_id not in self._known:
            return []
        found: dict[str, list[bytes]] = {}
        rows = self._database.query(
            "SELECT manifest_digest, blob FROM signature WHERE image_id = ? ORDER BY kept_ns DESC, fingerprint", image_id
        )
        for manifest_digest, blob in rows:
            found.setdefault(manifest_digest, []).append(blob)
        return [(manifest_digest, tuple(blobs)) for manifest_digest, blobs in found.items()]

    def keep(self, image_id: str, manifest_digest: str, blobs: Sequence[bytes], *, now_ns: int) -> None:
        """Add signatures of a manifest whose config is the image's; before the row of an image that is new."""
        if not blobs:
            return
        run, key = self._database.execute, (image_id, manifest_digest)
        names = {sha256(blob).hexdigest(): blob for blob in blobs[:MAX_BLOBS]}
        with self._database.transaction():
            here = self._database.query("SELECT fingerprint FROM signature WHERE image_id = ? AND manifest_digest = ?", *key)
            if len({*names, *(name for (name,) in here)}) > MAX_BLOBS:
                run("DELETE FROM signature WHERE image_id = ? AND manifest_digest = ?", *key)
            for name, blob in names.items():
                run("INSERT OR REPLACE INTO signature VALUES (?, ?, ?, ?, ?)", *key, name, blob, now_ns)
            for old in self._too_old(image_id):
                run("DELETE FROM signature WHERE image_id = ? AND manifest_digest = ?", image_id, old)
        self._reload(image_id)

    def forget(self, image_id: str) -> None:
        """Drop all signatures of an image; within the caller's transaction."""
        self._database.execute("DELETE FROM signature WHERE image_id = ?", image_id)
        self._known.pop(image_id, None)

    def _too_old(self, image_id: str) -> list[str]:
        rows = self._database.query(
            "SELECT manifest_digest FROM signature WHERE image_id = ? GROUP BY manifest_digest ORDER BY max(kept_ns) DESC",
            image_id,
        )
        return [manifest_digest for (manifest_digest,) in rows[MAX_MANIFESTS:]]

    def _reload(self, image_id: str) -> None:
        rows = self._database.query(
            "SELECT manifest_digest, fingerprint FROM signature WHERE image_id = ? ORDER BY manifest_digest, fingerprint",
            image_id,
        )
        names: dict[str, list[str]] = {}
        for manifest_digest, name in rows:
            names.setdefault(manifest_digest, []).append(name)
        self._known[image_id] = {
            manifest_digest: sha256(" ".join(listed).encode()).hexdigest() for manifest_digest, listed in names.items()
        }
