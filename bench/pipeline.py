"""What unpacking costs at least: the layers of an image through a decompressor and GNU tar, several at once, without a daemon.

It neither downloads nor hashes nor obeys whiteouts; `igzip` is the fastest gzip that Debian has, else the next best is taken.
"""

import concurrent.futures
import json
import os
import resource
import shutil
import statistics
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from place import Place

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
PROGRAMS = {"gzip": ("igzip", "pigz", "gzip"), "zstd": ("zstd",)}
AT_ONCE = 3  # as many as ours from one registry


def measure(place: Place, host: str, pictures: list[str], rounds: int) -> dict[str, Any]:
    """Wall and CPU seconds (medians) by picture (`many:gzip`), and the program that decompressed."""
    found = {}
    for picture in pictures:
        name, _, how = picture.partition(":")
        program = next(each for each in PROGRAMS[how] if shutil.which(each))
        blobs = layers(place, host, name, how)
        walls, cpus = zip(*(once(place.disk / "bare", blobs, program) for _ in range(rounds)), strict=True)
        found[picture] = {"program": program, "wall": statistics.median(walls), "cpu": statistics.median(cpus), "n": rounds}
    return found


def layers(place: Place, host: str, name: str, how: str) -> list[Path]:
    """The files of an image's layers in the registry, largest first."""
    request = urllib.request.Request(f"http://{host}/v2/{name}/manifests/{how}", headers={"Accept": MANIFEST})
    with urllib.request.urlopen(request, timeout=10) as answer:
        manifest = json.load(answer)
    blobs = place.registry / "docker/registry/v2/blobs/sha256"
    digests = [layer["digest"].partition(":")[2] for layer in sorted(manifest["layers"], key=lambda each: -each["size"])]
    return [blobs / digest[:2] / digest / "data" for digest in digests]


def once(target: Path, blobs: list[Path], program: str) -> tuple[float, float]:
    """Seconds of wall and of CPU for all layers, each into a directory of its own."""
    shutil.rmtree(target, ignore_errors=True)
    for at in range(len(blobs)):
        (target / str(at)).mkdir(parents=True)
    os.sync()

    def unpack(at: int) -> None:
        script = f'{program} -dc < "$0" | tar -xp --numeric-owner -C "$1"'
        subprocess.run(["sh", "-c", script, str(blobs[at]), str(target / str(at))], check=True)

    begin, before = time.perf_counter(), _children()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(unpack, range(len(blobs))))
    seconds = time.perf_counter() - begin, _children() - before
    shutil.rmtree(target)
    return seconds


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
