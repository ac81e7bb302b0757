"""What unpacking costs at least: the layers of an image through a decompressor and GNU tar, several at once, without a daemon.

It neither hashes nor obeys whiteouts; `igzip` is the fastest gzip that Debian has, else the next best is taken. Each round
takes the layers once from the registry's files and once from the registry by curl, and pulls the image with our daemon in
between: neighbours in time, because what a file system takes for many files changes within minutes on a shared machine.

Whoever pulls must hash: each byte as it travels and each as it is unpacked. What that costs by itself is measured beside it, as
many bytes through SHA-256, as many at once; how long it takes does not depend on what they are.
"""

import concurrent.futures
import hashlib
import json
import os
import resource
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import cribench
import pulls
from daemons import OURS, Running
from place import Place

FILES, FETCHED = "bare", "bare, fetched"  # where its bytes come from: the registry's files, or the registry
PROGRAMS = {"gzip": ("igzip", "pigz", "gzip"), "zstd": ("zstd",)}
AT_ONCE = 3  # as many as ours from one registry
BLOCK = bytes(1 << 18)  # hashed again and again


class Layer(NamedTuple):
    """A layer as the registry has it."""

    url: str
    file: Path


def program(picture: str) -> str:
    """What unpacks the layers of a picture (`many:gzip`) fastest on this machine."""
    return next(each for each in PROGRAMS[picture.partition(":")[2]] if shutil.which(each))


async def compare(
    place: Place, running: Running, words: list[str], *, host: str, pictures: list[str], rounds: int
) -> cribench.Results:
    """Pull each picture and unpack its layers without a daemon, in turns; `words` are cribench's arguments for every test."""
    options = cribench.arguments(["--socket", str(running.socket), *words])
    stubs = cribench.load_stubs(options.stubs)
    daemon = cribench.Daemon(OURS, (str(running.socket), running.pid, str(running.cgroup)), options, stubs)
    results = cribench.Results([OURS, FILES, FETCHED])
    try:
        for picture in pictures:
            for each in pictures:  # the same layers in another compression would be found here, and not pulled
                await daemon.remove_image(f"{host}/{each}")
            await _alternate(place, daemon, results, (host, picture, rounds))
    finally:
        await daemon.channel.close()
    return results


async def _alternate(place: Place, daemon: cribench.Daemon, results: cribench.Results, what: tuple[str, str, int]) -> None:
    host, picture, rounds = what
    layers, unpacker = find_layers(place, host, picture), program(picture)
    counts = [each for layer in layers for each in (layer.file.stat().st_size, plain_size(layer.file, unpacker))]
    sources = {FILES: [f'{unpacker} -dc < "{layer.file}"' for layer in layers]}
    sources[FETCHED] = [f'curl -sSf "{layer.url}" | {unpacker} -dc' for layer in layers]
    for number in range(rounds):
        values: dict[str, dict[str, float]] = {}
        for name in pulls.turns([FETCHED, OURS, FILES], number):
            await pulls.removal(daemon, f"{host}/{picture}")
            await pulls.rest([daemon])
            if name != OURS:
                wall, cpu = unpack(place, sources[name])
                values[name] = {"wall": wall, "cpu": cpu}
                continue
            walls, _ = await pulls.watched_pull(daemon, f"{host}/{picture}")
            values[name] = {"wall": walls["PullImage"], "cpu": walls["cpu with client"]}
        digests = hashing(counts)
        for name, measures in values.items():
            measures["cpu and digests"] = measures["cpu"] + (0 if name == OURS else digests)
        results.pair(f"pipeline {picture}", values)


def find_layers(place: Place, host: str, picture: str) -> list[Layer]:
    """The layers of an image in the registry, largest first."""
    name, _, tag = picture.partition(":")
    request = urllib.request.Request(f"http://{host}/v2/{name}/manifests/{tag}", headers={"Accept": pulls.MANIFEST})
    with urllib.request.urlopen(request, timeout=10) as answer:
        manifest = json.load(answer)
    blobs = place.registry / "docker/registry/v2/blobs/sha256"
    digests = [layer["digest"] for layer in sorted(manifest["layers"], key=lambda each: -each["size"])]
    hexes = [digest.partition(":")[2] for digest in digests]
    return [
        Layer(f"http://{host}/v2/{name}/blobs/{digest}", blobs / each[:2] / each / "data")
        for digest, each in zip(digests, hexes, strict=True)
    ]


def unpack(place: Place, sources: list[str]) -> tuple[float, float]:
    """Seconds of wall and of CPU for all layers, each into a directory of its own; in a cgroup, as the daemons are.

    `sources` are shell commands that write a layer's tar.
    """
    target, entering = place.disk / "bare", place.entering("bare")
    shutil.rmtree(target, ignore_errors=True)
    for at in range(len(sources)):
        (target / str(at)).mkdir(parents=True)
    os.sync()

    def work(at: int) -> None:
        script = f'set -o pipefail; {sources[at]} | tar -xp --numeric-owner -C "$0"'
        subprocess.run([*entering, "bash", "-c", script, str(target / str(at))], check=True)

    begin, before = time.perf_counter(), _children()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(work, range(len(sources))))
    seconds = time.perf_counter() - begin, _children() - before
    shutil.rmtree(target)
    return seconds


def plain_size(blob: Path, unpacker: str) -> int:
    """How many bytes a layer unpacks to."""
    script = f'{unpacker} -dc < "$0" | wc -c'
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
