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


def picture(word: str) -> str:
    """An image and how its layers are compressed, `many:zstd`; gzip unless said."""
    return word if ":" in word else f"{word}:gzip"


def serve(place: Place, registry: str, pictures: Sequence[str], ready_made: Path | None) -> None:
    """See to it that the registry has every image, as <name>:<compression>.

    `ready_made` is a directory of layouts (<name>-<compression>) built before; what it lacks is built in the run's directory.
    """
    missing = [each for each in pictures if status(_url(registry, each), MANIFEST) != 200]
    absent = [each for each in missing if _layout(place, ready_made, each) is None]
    for name in dict.fromkeys(each.partition(":")[0] for each in absent):
        _build(place, name, [each.partition(":")[2] for each in absent if each.startswith(f"{name}:")])
    for each in missing:
        print(f"bench: pushing {each}", flush=True)
        flags = ["-q", "--preserve-digests", "--dest-tls-verify=false"]
        command = ["skopeo", "copy", *flags, f"oci:{_layout(place, ready_made, each)}:latest", f"docker://{registry}/{each}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    _read_through(place.registry)


def _url(registry: str, picture: str) -> str:
    name, _, tag = picture.partition(":")
    return f"http://{registry}/v2/{name}/manifests/{tag}"


def _layout(place: Place, ready_made: Path | None, picture: str) -> Path | None:
    name = picture.replace(":", "-")
    found = (each / name for each in (ready_made, place.images) if each is not None)
    return next((each for each in found if (each / "index.json").exists()), None)


def _build(place: Place, name: str, ways: Sequence[str]) -> None:
    long = ", about ten minutes" if name in ("many", "few") else ""
    print(f"bench: building image {name} from Debian packages{long}", flush=True)
    command = [sys.executable, str(MAKER), "--out", str(place.images), "--images", name, "--compress", ",".join(ways)]
    subprocess.run(command, check=True)
    shutil.rmtree(place.images / "tars", ignore_errors=True)


def _read_through(directory: Path) -> None:
    """Have the registry's files in memory: the disk's first read is nobody's merit."""
    for top, _, files in os.walk(directory):
        for name in files:
            with open(os.path.join(top, name), "rb") as file:
                while file.read(1 << 20):
                    pass
