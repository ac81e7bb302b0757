"""The images of a run: built from Debian packages once, kept, and pushed to the run's registry."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from daemons import status
from place import Place

MAKER = Path(__file__).with_name("make_images.py")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def serve(place: Place, registry: str, names: Sequence[str], ready_made: Path | None) -> None:
    """See to it that the registry has every image as <name>:gzip.

    `ready_made` is a directory of layouts (<name>-gzip) built before; what it lacks is built in the run's directory.
    """
    missing = [name for name in names if status(f"http://{registry}/v2/{name}/manifests/gzip", MANIFEST) != 200]
    for name in missing:
        layout = f"{name}-gzip"
        found = [each / layout for each in (ready_made, place.images) if each and (each / layout / "index.json").exists()]
        if not found:
            _build(place, name)
            found = [place.images / layout]
        print(f"bench: pushing {name}", flush=True)
        target = f"docker://{registry}/{name}:gzip"
        flags = ["-q", "--preserve-digests", "--dest-tls-verify=false"]
        subprocess.run(["skopeo", "copy", *flags, f"oci:{found[0]}:latest", target], check=True, stdout=subprocess.DEVNULL)
    _read_through(place.registry)


def _build(place: Place, name: str) -> None:
    print(f"bench: building image {name} from Debian packages" + (", about ten minutes" if name == "many" else ""), flush=True)
    command = [sys.executable, str(MAKER), "--out", str(place.images), "--images", name, "--compress", "gzip"]
    subprocess.run(command, check=True)
    shutil.rmtree(place.images / "tars", ignore_errors=True)


def _read_through(directory: Path) -> None:
    """Have the registry's files in memory: the disk's first read is nobody's merit."""
    for top, _, files in os.walk(directory):
        for name in files:
            with open(os.path.join(top, name), "rb") as file:
                while file.read(1 << 20):
                    pass
