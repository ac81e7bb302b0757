"""`kpod stats`: what containers use, once or again and again.

The share of processors comes from two samples of a counter, so the first table takes half a second. The number of
processes is known for pods only; it is shown for a pod of one container.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import click

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Unsupported
from criollo.kpod.lookup import Everything, everything, require_either
from criollo.kpod.session import Options, Session, work
from criollo.kpod.terminal import Screen, is_terminal
from criollo.kpod.text import short, size, table

FIRST_S: Final = 0.5
EVERY_S: Final = 2.0
HEADS: Final = ("CONTAINER ID", "NAME", "POD", "CPU", "MEMORY", "LIMIT", "PIDS", "WRITABLE LAYER")


class Sampled(NamedTuple):
    """Figures of all containers at one moment, by id; and processes by pod."""

    containers: Mapping[str, pb.ContainerStats]
    processes: Mapping[str, int]


@click.command("stats")
@click.option("--no-stream", is_flag=True, help="Show one table and end; so without a terminal.")
@click.argument("names", nargs=-1, metavar="[POD|CONTAINER...]")
@click.pass_obj
def stats(options: Options, names: tuple[str, ...], no_stream: bool) -> int:
    """Show what containers use; all that run when none is named."""

    async def verb(session: Session) -> int:
        wanted = _chosen(await everything(session), names)
        before = await _sample(session)
        await asyncio.sleep(FIRST_S)
        screen = None if no_stream or not is_terminal() else Screen(sys.stdout)
        while True:
            known, now = await everything(session), await _sample(session)
            lines = table(HEADS, rows(known, before, now, wanted)).split("\n")
            if screen is None:
                click.echo("\n".join(lines))
                return 0
            screen.show_lines(lines)
            before = now
            await asyncio.sleep(EVERY_S)

    return work(options, verb)


def rows(known: Everything, before: Sampled, now: Sampled, wanted: frozenset[str] | None) -> list[tuple[str, ...]]:
    """A row per container that runs and is wanted (None: all), the busiest first."""
    found = []
    for container in known.containers:
        figures = now.containers.get(container.id)
        if figures is None or (wanted is not None and container.id not in wanted):
            continue
        percent = cpu_percent(before.containers.get(container.id), figures)
        pod = known.pod_of(container)
        alone = len([each for each in known.containers_of(container.pod_sandbox_id) if each.id in now.containers]) == 1
        row = (
            short(container.id),
            container.metadata.name,
            pod.metadata.name if pod is not None else "",
            "-" if percent is None else f"{percent:.1f} %",
            *_memory(figures),
            str(now.processes.get(container.pod_sandbox_id, "-")) if alone else "-",
            size(figures.writable_layer.used_bytes.value) if figures.HasField("writable_layer") else "-",
        )
        found.append((-(percent or 0), row))
    return [row for _, row in sorted(found)]


def cpu_percent(before: pb.ContainerStats | None, now: pb.ContainerStats) -> float | None:
    """Percent of one processor between two samples; None when they do not say."""
    if before is None or not now.cpu.HasField("usage_core_nano_seconds"):
        return None
    elapsed_ns = now.cpu.timestamp - before.cpu.timestamp
    used_ns = now.cpu.usage_core_nano_seconds.value - before.cpu.usage_core_nano_seconds.value
    return None if elapsed_ns <= 0 or used_ns < 0 else 100 * used_ns / elapsed_ns


def _memory(figures: pb.ContainerStats) -> tuple[str, str]:
    """Working set and limit."""
    memory = figures.memory
    if not memory.HasField("working_set_bytes"):
        return "-", "-"
    used = memory.working_set_bytes.value
    limited = memory.HasField("available_bytes")
    return size(used), size(used + memory.available_bytes.value) if limited else "-"


def _chosen(known: Everything, names: Sequence[str]) -> frozenset[str] | None:
    if not names:
        return None
    ids: set[str] = set()
    for name in names:
        found = require_either(known, name)
        ids |= {each.id for each in known.containers_of(found.id)} if isinstance(found, pb.PodSandbox) else {found.id}
    return frozenset(ids)


async def _sample(session: Session) -> Sampled:
    reply = await session.client.runtime("ListContainerStats", pb.ListContainerStatsRequest())
    containers = {each.attributes.id: each for each in reply.stats}
    try:
        pods = await session.client.runtime("ListPodSandboxStats", pb.ListPodSandboxStatsRequest())
    except Unsupported:
        return Sampled(containers, {})
    processes = {
        each.attributes.id: each.linux.process.process_count.value for each in pods.stats if each.linux.HasField("process")
    }
    return Sampled(containers, processes)
