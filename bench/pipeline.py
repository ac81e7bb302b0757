"""What unpacking costs at least: the layers of an image through a decompressor and GNU tar, several at once, without a daemon.

It neither downloads nor hashes nor obeys whiteouts; `igzip` is the fastest gzip that Debian has, else the next best is taken.
Whoever pulls must hash: each byte as it travels and each as it is unpacked. What that costs by itself is measured beside it, as
many bytes through SHA-256, as many at once; how long it takes does not depend on what they are.
"""

import concurrent.futures
import hashlib
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
BLOCK = bytes(1 << 18)  # hashed again and again


def measure(place: Place, host: str, pictures: list[str], rounds: int) -> dict[str, Any]:
    """Wall and CPU seconds (medians) by picture (`many:gzip`), the program that decompressed, CPU seconds of the digests."""
    found = {}
    for picture in pictures:
        name, _, how = picture.partition(":")
        program = next(each for each in PROGRAMS[how] if shutil.which(each))
        blobs = layers(place, host, name, how)
        counts = [each for blob in blobs for each in (blob.stat().st_size, plain_size(blob, program))]
        rows = [(*once(place, blobs, program), hashing(counts)) for _ in range(rounds)]
        wall, cpu, digests = (statistics.median(column) for column in zip(*rows, strict=True))
        found[picture] = {"program": program, "wall": wall, "cpu": cpu, "digests": digests, "n": rounds}
    return found


def layers(place: Place, host: str, name: str, how: str) -> list[Path]:
    """The files of an image's layers in the registry, largest first."""
    request = urllib.request.Request(f"http://{host}/v2/{name}/manifests/{how}", headers={"Accept": MANIFEST})
    with urllib.request.urlopen(request, timeout=10) as answer:
        manifest = json.load(answer)
    blobs = place.registry / "docker/registry/v2/blobs/sha256"
    digests = [layer["digest"].partition(":")[2] for layer in sorted(manifest["layers"], key=lambda each: -each["size"])]
    return [blobs / digest[:2] / digest / "data" for digest in digests]


def once(place: Place, blobs: list[Path], program: str) -> tuple[float, float]:
    """Seconds of wall and of CPU for all layers, each into a directory of its own; in a cgroup, as the daemons are."""
    target, entering = place.disk / "bare", place.entering("bare")
    shutil.rmtree(target, ignore_errors=True)
    for at in range(len(blobs)):
        (target / str(at)).mkdir(parents=True)
    os.sync()

    def unpack(at: int) -> None:
        script = f'{program} -dc < "$0" | tar -xp --numeric-owner -C "$1"'
        subprocess.run([*entering, "sh", "-c", script, str(blobs[at]), str(target / str(at))], check=True)

    begin, before = time.perf_counter(), _children()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(unpack, range(len(blobs))))
    seconds = time.perf_counter() - begin, _children() - before
    shutil.rmtree(target)
    return seconds


def plain_size(blob: Path, program: str) -> int:
    """How many bytes a layer unpacks to."""
    script = f'{program} -dc < "$0" | wc -c'
    return int(subprocess.run(["sh", "-c", script, str(blob)], check=True, capture_output=True).stdout)


def hashing(counts: list[int]) -> float:
    """Seconds of CPU for SHA-256 of so many bytes each."""

    def work(count: int) -> None:
        digest = hashlib.sha256()
        for _ in range(count // len(BLOCK)):
            digest.update(BLOCK)
        digest.update(BLOCK[: count % len(BLOCK)])

    before = time.process_time()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(work, counts))
    return time.process_time() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
