"""Stores of containers/storage: made by skopeo, or by hand where a tool would not make them so."""

import base64
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.images import Image, digest_of, write_oci_layout


def skopeo_copy(root: Path, image: Image, name: str, scratch: Path, *, signer: tuple[Path, str] | None = None) -> None:
    """Put an image into the store at `root` with skopeo, as podman would have it there; `signer`: GPG home and key."""
    layout = scratch / f"layout-{image.id[:12]}-{digest_of(name.encode())[7:19]}"
    if not layout.exists():
        layout.mkdir()
        write_oci_layout(layout, {name: image})
    signing = ("--sign-by", signer[1]) if signer else ()
    home = {"GNUPGHOME": str(signer[0])} if signer else {}
    _skopeo(root, "copy", *signing, f"oci:{layout}:{name}", f"containers-storage:{name}", **home)


def skopeo_delete(root: Path, name: str) -> None:
    _skopeo(root, "delete", f"containers-storage:{name}")


def _skopeo(root: Path, *arguments: str, **variables: str) -> None:
    conf = root.with_name(f"{root.name}-storage.conf")
    conf.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{root}"\nrunroot = "{root}-run"\n')
    environment = {**os.environ, "CONTAINERS_STORAGE_CONF": str(conf), **variables}
    done = subprocess.run(["skopeo", *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False)
    subprocess.run(["umount", str(root / "overlay")], capture_output=True, check=False)  # which its tools mount and leave
    assert done.returncode == 0, done.stderr


class HandmadeStore:
    """A store written file by file; `images` and `layers` are its records, for a test to spoil before `write`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images: list[dict[str, Any]] = []
        self.layers: list[dict[str, Any]] = []
        for name in ("overlay", "overlay-images", "overlay-layers"):
            (root / name).mkdir(parents=True, mode=0o700)

    def add(self, image: Image, *names: str, trees: Sequence[Mapping[str, str]] = ()) -> list[str]:
        """An image with its records; `trees` are files of its layers, by path. Returns the layers' ids, bottom first."""
        ids = [image.id[:32] + f"{number:032x}" for number, _ in enumerate(image.layers)]
        for number, (layer_id, layer) in enumerate(zip(ids, image.layers, strict=True)):
            self.layers.append(
                {"id": layer_id, "diff-digest": layer.diff_id, "diff-size": 100, "created": "2026-01-01T00:00:00Z"}
            )
            if number:
                self.layers[-1]["parent"] = ids[number - 1]
            diff = self.diff(layer_id)
            diff.mkdir(parents=True)
            for path, text in (trees[number] if number < len(trees) else {}).items():
                (diff / path).parent.mkdir(parents=True, exist_ok=True)
                (diff / path).write_text(text)
        self.images.append({"id": image.id, "digest": image.digest, "names": list(names), "layer": ids[-1] if ids else ""})
        self.document(image.id, "manifest", image.manifest)
        self.document(image.id, f"sha256:{image.id}", image.config)
        self.write()
        return ids

    def diff(self, layer_id: str) -> Path:
        return self.root / "overlay" / layer_id / "diff"

    def document(self, image_id: str, name: str, content: bytes) -> Path:
        plain = all(letter in ".0123456789abcdefghijklmnopqrstuvwxyz" for letter in name)
        path = self.root / "overlay-images" / image_id / (name if plain else "=" + base64.b64encode(name.encode()).decode())
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    def write(self) -> None:
        """Replace both records as their tools do."""
        for place, records in (("overlay-layers/layers.json", self.layers), ("overlay-images/images.json", self.images)):
            part = self.root / f"{place}.part"
            part.write_text(json.dumps(records))
            part.rename(self.root / place)
