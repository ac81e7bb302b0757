"""Mounts that the node gives to every container: mounts.conf, as containers-mounts.conf(5) has it.

    /usr/share/secrets:/run/secrets     SOURCE:DESTINATION, or one path for both; # begins a comment

`default_mounts_file` if it is set, else the first of MOUNTS_FILES that is there. What a source holds is copied for each
container, links followed, and mounted read-only: its own copy, which ends with it, and which it cannot fill (CVE-2020-8557).
A worker copies: a source that hangs costs its container only.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from criollo.aio import threads
from criollo.containers.context import Containers
from criollo.containers.reachable import check_answers
from criollo.containers.rootfs import Ground
from criollo.containers.volumes import MOUNTS_FILES
from criollo.errors import Exhausted, Invalid
from criollo.linux import files
from criollo.oci import runtime_spec
from criollo.specgen import paths
from criollo.workers.messages import Duplicated, DuplicateJob

MOST_BYTES: Final = 16 << 20  # of one container
MOST_ENTRIES: Final = 10_000

_LIMIT_BYTES: Final = 1 << 20
_OPTIONS: Final = ("bind", "rprivate", "ro", "nosuid", "nodev")


class Line(NamedTuple):
    """One line of the file."""

    source: str
    destination: str


def parse_mounts(text: str, name: str) -> list[Line]:
    """The lines of a file; `name` stands in errors.

    Raises:
        Invalid: a line is no pair of absolute paths, or two have one destination.
    """
    found: dict[str, Line] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        field = f"{name} line {number}"
        parts = line.split(":")
        if len(parts) > 2:
            raise Invalid(field, line, "/source:/destination")
        source, destination = (paths.check_absolute(part.strip(), field) for part in (parts[0], parts[-1]))
        paths.check_outside_kernel(destination, field)
        if destination == "/" or destination in found:
            raise Invalid(field, destination, "each destination once, and not /")
        found[destination] = Line(source, destination)
    return list(found.values())


async def given(containers: Containers, configured: str, ground: Ground, *, label: str = "") -> tuple[runtime_spec.Mount, ...]:
    """The mounts for one container, their sources copied below its bundle; none where no file says so.

    Raises:
        Invalid: the file is malformed, or a source is not there.
        Exhausted: the sources are too much.
        TimedOut: a source hangs.
    """
    if configured:
        await check_answers(containers, configured, "default_mounts_file")
    lines = await threads.files(_read, (configured,) if configured else MOUNTS_FILES)
    if lines:
        await threads.files(files.make_directory, ground.bundle, keep=files.PASS)
    left_bytes, left_entries, mounts = MOST_BYTES, MOST_ENTRIES, []
    for number, line in enumerate(lines):
        job = DuplicateJob(
            path=line.source,
            target=str(ground.bundle / "defaults" / str(number)),
            owner=ground.owner,
            limit_bytes=left_bytes,
            limit_entries=left_entries,
            label=label,
        )
        copied = await _copied(containers, job, line)
        left_bytes, left_entries = copied.left_bytes, copied.left_entries
        mounts.append(runtime_spec.Mount(destination=line.destination, type="bind", source=job.target, options=_OPTIONS))
    return tuple(mounts)


async def _copied(containers: Containers, job: DuplicateJob, line: Line) -> Duplicated:
    try:
        copied = await containers.workers.duplicate(job, containers.probe_s)
    except Exhausted as error:
        most = f"more than {MOST_BYTES >> 20} MiB or {MOST_ENTRIES} files, or than there is room for"
        raise Exhausted(f"cannot copy default mount {line.source}: {most}") from error
    if copied.missing:
        raise Invalid("default_mounts_file", line.source, f"an existing source for {line.destination}")
    return copied


def _read(candidates: Sequence[str]) -> list[Line]:
    for path in candidates:
        try:
            return parse_mounts(files.read_limited(path, _LIMIT_BYTES).decode("utf-8", "replace"), path)
        except FileNotFoundError:
            continue
    return []
