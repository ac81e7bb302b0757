"""`kpod inspect docker://NAME`: an image at its registry, without pulling it. Needs no daemon."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from criollo.errors import Invalid
from criollo.kpod.credentials import Login
from criollo.kpod.session import Options, load_settings
from criollo.kpod.text import document
from criollo.oci.platform import Platform
from criollo.telemetry import log

if TYPE_CHECKING:
    from criollo.config.settings import Settings
    from criollo.registry.client import Registry, Shown

PREFIX = "docker://"


class Look(NamedTuple):
    """What is wanted of it."""

    raw: bool = False
    config: bool = False
    tags: bool = True
    platform: str = ""
    account: Login | None = None


def show(options: Options, name: str, wanted: Look) -> int:
    """Print it. Raises what a pull of it would raise."""
    log.set_up(options.log_level)
    found = asyncio.run(_gather(load_settings(options).settings, name.removeprefix(PREFIX), wanted))
    if isinstance(found, bytes):
        write_raw(found)
    else:
        click.echo(document(found))
    return 0


def write_raw(content: bytes) -> None:
    """Exact bytes on standard output, for programs."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


async def _gather(settings: "Settings", name: str, wanted: Look) -> bytes | Any:
    from criollo.images import remote

    shown = shown_of(wanted.account)
    async with opened_registry(settings) as client:
        ref = client.hosts.candidates(name)[0].reference
        image = await remote.look(client, ref, shown, platform=_platform(wanted.platform))
        if wanted.config:
            config = await remote.fetch_config(client, image, shown)
            return config if wanted.raw else msgspec.json.decode(config)
        if wanted.raw:
            return image.raw
        return await remote.describe(client, image, shown, tags=wanted.tags)


@contextlib.asynccontextmanager
async def opened_registry(settings: "Settings") -> "AsyncIterator[Registry]":
    """The client of all registries, as the daemon has it, for a verb that needs no daemon."""
    # The engine brings all drivers: 0.3 s that other verbs do not need.
    from criollo.aio import threads
    from criollo.engine.images import open_registry

    client = open_registry(settings, os.environ)
    try:
        yield client
    finally:
        await client.close()
        threads.close()


def shown_of(account: Login | None) -> "Shown":
    """What a registry is shown for `--creds`."""
    from criollo.registry.auth import Credentials

    return None if account is None else Credentials(username=account.username, password=account.password)


def _platform(text: str) -> Platform | None:
    if not text:
        return None
    words = text.split("/")
    if not 2 <= len(words) <= 3 or not all(words):
        raise Invalid("--platform", text, "os/architecture[/variant]")
    return Platform.normal(*words)
