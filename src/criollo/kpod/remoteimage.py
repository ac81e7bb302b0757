"""`kpod inspect docker://NAME`: an image at its registry, without pulling it. Needs no daemon."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from criollo.kpod.access import Access, shown_of, terms_of
from criollo.kpod.outcome import each_of
from criollo.kpod.session import Options, load_settings
from criollo.kpod.template import Template
from criollo.kpod.text import document
from criollo.oci.platform import Platform
from criollo.telemetry import log

if TYPE_CHECKING:
    from criollo.config.settings import Settings
    from criollo.registry.client import Registry
    from criollo.registry.terms import Terms

PREFIX = "docker://"


class Look(NamedTuple):
    """What is wanted of it."""

    raw: bool = False
    config: bool = False
    tags: bool = True
    platform: str = ""
    access: Access = Access()
    template: Template | None = None

    def write(self, found: dict[str, Any]) -> None:
        """Print a document, or what the template makes of it."""
        click.echo(document(found) if self.template is None else self.template.fill(found))


def show(options: Options, names: Sequence[str], wanted: Look) -> int:
    """Print them, each for itself; the exit status."""
    log.set_up(options.log_level)
    settings = load_settings(options).settings

    async def one(name: str) -> None:
        found = await _gather(settings, name.removeprefix(PREFIX), wanted)
        if isinstance(found, bytes):
            write_raw(found)
        else:
            wanted.write(found)

    return asyncio.run(each_of(names, one))


def write_raw(content: bytes) -> None:
    """Exact bytes on standard output, for programs."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


async def _gather(settings: "Settings", name: str, wanted: Look) -> bytes | Any:
    from criollo.images import remote

    shown = shown_of(wanted.access)
    async with opened_registry(settings, terms_of(wanted.access)) as client:
        ref = client.hosts.candidates(name)[0].reference
        platform = Platform.parse(wanted.platform, field="--platform") if wanted.platform else None
        image = await remote.look(client, ref, shown, platform=platform)
        if wanted.config:
            config = await remote.fetch_config(client, image, shown)
            return config if wanted.raw else msgspec.json.decode(config)
        if wanted.raw:
            return image.raw
        return await remote.describe(client, image, shown, tags=wanted.tags)


@contextlib.asynccontextmanager
async def opened_registry(settings: "Settings", terms: "Terms | None" = None) -> "AsyncIterator[Registry]":
    """The client of all registries, as the daemon has it, for a verb without one; on its own terms if there are some."""
    # The engine brings all drivers: 0.3 s that other verbs do not need.
    from criollo.aio import threads
    from criollo.engine.images import open_registry

    client = open_registry(settings, os.environ)
    if terms is not None:
        client.use(client.hosts.on(terms))
    try:
        yield client
    finally:
        await client.close()
        threads.close()
