-- images.db: which images are here. A layer row says that its directory is whole; a directory without a row is garbage.

CREATE TABLE image (
  id TEXT PRIMARY KEY,            -- hex of the config digest
  manifest_digest TEXT NOT NULL,  -- of the exact bytes in `manifest`
  manifest BLOB NOT NULL,
  config BLOB NOT NULL,
  size_bytes INTEGER NOT NULL,    -- of the layers as unpacked, plus manifest and config
  pulled_ns INTEGER NOT NULL,
  pinned INTEGER NOT NULL,
  annotations TEXT NOT NULL       -- JSON object: annotations of the image spec it was pulled with
) STRICT, WITHOUT ROWID;

CREATE TABLE reference (
  name TEXT PRIMARY KEY,          -- docker.io/library/busybox:latest, or …@sha256:…
  image_id TEXT NOT NULL REFERENCES image (id),
  is_digest INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE layer (
  name TEXT PRIMARY KEY,          -- directory below <root>/layers
  diff_id TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,    -- unpacked
  inodes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE image_layer (
  image_id TEXT NOT NULL REFERENCES image (id),
  position INTEGER NOT NULL,      -- 0 is the bottom
  layer TEXT NOT NULL REFERENCES layer (name),
  PRIMARY KEY (image_id, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_of_layer ON image_layer (layer);
