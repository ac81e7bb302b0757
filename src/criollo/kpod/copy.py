"""`kpod copy`: an image, or all that an index lists, from one place to another as it is. It needs no daemon, and no store."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from criollo.errors import Invalid, explain, printable
from criollo.kpod.access import Access, authfile_option, shown_of, taken, terms_of
from criollo.kpod.outcome import warn
from criollo.kpod.remoteimage import opened_registry
from criollo.kpod.session import Options, load_settings
from criollo.kpod.terminal import Lines, Screen, progress_on
from criollo.kpod.text import size
from criollo.oci.platform import Platform
from criollo.telemetry import log

if TYPE_CHECKING:
    from criollo.config.settings import Settings
    from criollo.images.copy import Copied, CopySource, CopyTarget, CopyWish
    from criollo.images.progress import Progress
    from criollo.oci.reference import Reference
    from criollo.registry.client import Registry

_FILES: Final = ("oci", "oci-archive", "docker-archive", "dir")
_OTHERS: Final = ("docker-daemon", "containers-storage", "ostree", "sif", "atomic")
_EVERY_S: Final = 0.1


class End(NamedTuple):
    """One end of a copy: a transport with a path and a name, or `docker` with a name."""

    transport: str
    path: str
    name: str


class Both(NamedTuple):
    """The two ends, and what a registry at either is shown."""

    source: End
    target: End
    source_access: Access
    target_access: Access
    further_tags: tuple[str, ...] = ()


def _ends_options(command: "click.decorators.FC") -> "click.decorators.FC":
    for side, words in (("dest", "destination"), ("src", "source")):
        for option in (
            click.option(f"--{side}-cert-dir", metavar="DIRECTORY", help=f"Certificates for the {words}, as in certs.d."),
            click.option(
                f"--{side}-tls-verify", metavar="true|false", type=bool, help=f"Whether TLS of the {words} is verified."
            ),
            click.option(f"--{side}-creds", metavar="USER[:PASSWORD]", help=f"Log in at the {words} with these."),
        ):
            command = option(command)
    return authfile_option(command)


@click.command("copy")
@click.option("-a", "--all", "every", is_flag=True, help="All platforms that an index lists, and the index.")
@click.option("--platform", default="", metavar="OS/ARCH[/VARIANT]", help="Which of an index; none: this host's.")
@click.option("--remove-signatures", is_flag=True, help="Leave signatures behind.")
@click.option(
    "--additional-tag", "tags", metavar="NAME", multiple=True, help="A further name in a docker-archive: destination."
)
@click.option("--digestfile", metavar="FILE", help="Write the digest of the manifest there.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@_ends_options
@click.argument("source")
@click.argument("destination")
@click.pass_obj
def copy(options: Options, /, source: str, destination: str, **said: Any) -> int:
    """Copy an image from SOURCE to DESTINATION as it is, and print its digest.

    Either is [docker://]NAME[:TAG|@DIGEST] at a registry, oci:DIRECTORY[:NAME], oci-archive:FILE[:NAME],
    docker-archive:FILE[:NAME] (of several images one by its NAME or as @NUMBER) or dir:DIRECTORY.
    Every manifest is judged by this node's trust policy first. What the destination has is not sent.
    """
    from criollo.images.copy import CopyWish

    log.set_up(options.log_level)
    if said["every"] and said["platform"]:
        raise click.UsageError("--all and --platform are alternatives.")
    ends = parse_end(source, "source"), parse_end(destination, "destination")
    both = Both(*ends, _access(said, "src"), _access(said, "dest"), said["tags"])
    if both.further_tags and both.target.transport != "docker-archive":
        raise click.UsageError("--additional-tag goes with a docker-archive: destination.")
    for side, end, access in (("src", both.source, both.source_access), ("dest", both.target, both.target_access)):
        if end.transport != "docker" and (access.account or access.has_terms):
            raise click.UsageError(
                f"--{side}-creds, --{side}-tls-verify and --{side}-cert-dir are for registries, not for files."
            )
    platform = Platform.parse(said["platform"], field="--platform") if said["platform"] else None
    wish = CopyWish(said["every"], platform, not said["remove_signatures"])
    done = asyncio.run(_copy(load_settings(options).settings, both, wish, quiet=said["quiet"]))
    for digest in done.missing:
        warn(f"the source lacks the foreign layer {digest}; who wants the image must have it from elsewhere")
    if not said["quiet"]:
        click.echo(f"{done.sent} of {done.blobs} blobs sent, {size(done.sent_bytes)}", err=True)
    if said["digestfile"]:
        with explain(f"write {said['digestfile']}"):
            Path(said["digestfile"]).write_text(done.digest)
    click.echo(done.digest)
    return 0


def parse_end(text: str, field: str) -> End:
    """What a source or destination means.

    Raises:
        Invalid: a transport that is not there, or one without a path.
    """
    transport, colon, rest = text.partition(":")
    if colon and transport in _OTHERS:
        raise Invalid(field, text, f"docker:// or one of {', '.join(f'{each}:' for each in _FILES)}; see kpod load and save")
    if not colon or transport not in _FILES:
        return End("docker", "", text.removeprefix("docker://"))
    path, _, name = (rest, "", "") if transport == "dir" else rest.partition(":")
    if not path:
        raise Invalid(field, text, f"{transport}:PATH" + ("" if transport == "dir" else "[:NAME]"))
    if name and (len(name) > 512 or printable(name) != name or not name.isascii()):
        raise Invalid(field, text, "a name of letters, digits and punctuation")
    return End(transport, os.path.abspath(path), name)


def _access(said: dict[str, Any], side: str) -> Access:
    keys = ("creds", "tls_verify", "cert_dir")
    return taken({"authfile": said["authfile"], **{key: said[f"{side}_{key}"] for key in keys}})


async def _copy(settings: "Settings", both: Both, wish: "CopyWish", *, quiet: bool) -> "Copied":
    from criollo.aio.background import Background
    from criollo.images.copy import copy_image
    from criollo.images.progress import Progress

    progress = Progress(both.source.name or both.source.path)
    async with contextlib.AsyncExitStack() as stack:
        registry = await stack.enter_async_context(opened_registry(settings, terms_of(both.source_access)))
        source, name = await _opened_source(stack, settings, both, registry)
        target = await _opened_target(stack, settings, both, name)
        async with Background() as background:
            shown = None if quiet else progress_on(sys.stderr)
            if shown is not None:
                background.start(_show(progress, shown), name="progress")
            done = await copy_image(source, target, wish, progress)
        if shown is not None:
            shown.show([layer.state() for layer in progress.layers])
    return done


async def _show(progress: "Progress", shown: "Screen | Lines") -> None:
    while True:
        shown.show([layer.state() for layer in progress.layers])
        await asyncio.sleep(_EVERY_S)


async def _opened_source(
    stack: contextlib.AsyncExitStack, settings: "Settings", both: Both, registry: "Registry"
) -> "tuple[CopySource, Reference | None]":
    """The source, open until the stack unwinds, and its name at a registry."""
    from criollo.images import copysources
    from criollo.images.copydocker import opened_docker_archive
    from criollo.trust.places import FilePlace

    end, scratch = both.source, _scratch(settings)
    trust = await stack.enter_async_context(_trust(settings))
    if end.transport == "docker":
        ref = registry.hosts.candidates(end.name)[0].reference
        return copysources.RegistrySource(registry, ref, shown_of(both.source_access), trust=trust), ref
    path = Path(end.path)
    ruled = copysources.Ruled(trust.judge, FilePlace.at(end.transport, path))
    trust.judge.judge_file(ruled.place)
    if end.transport == "dir":
        return stack.enter_context(copysources.opened_dir(path, ruled)), None
    if end.transport == "oci-archive":
        return await stack.enter_async_context(copysources.opened_oci_archive(path, end.name, scratch)), None
    if end.transport == "docker-archive":
        return await stack.enter_async_context(opened_docker_archive(path, end.name, scratch)), None
    return stack.enter_context(copysources.opened_layout(path, end.name)), None


async def _opened_target(
    stack: contextlib.AsyncExitStack, settings: "Settings", both: Both, name: "Reference | None"
) -> "CopyTarget":
    """The target, open until the stack unwinds; `name` is that of a source at a registry."""
    from criollo.images.copyarchive import opened_archive_target
    from criollo.images.copydocker import opened_docker_target
    from criollo.images.copyregistry import Destination, RegistryTarget
    from criollo.images.copytargets import opened_dir_target, opened_layout_target
    from criollo.linux.home import with_home
    from criollo.registry.registries_d import find_directory

    end = both.target
    if end.transport == "oci":
        return stack.enter_context(opened_layout_target(Path(end.path), end.name))
    if end.transport == "oci-archive":
        return await stack.enter_async_context(opened_archive_target(Path(end.path), end.name))
    if end.transport == "docker-archive":
        names = (*([end.name] if end.name else []), *both.further_tags)
        return await stack.enter_async_context(opened_docker_target(Path(end.path), names))
    if end.transport == "dir":
        return await stack.enter_async_context(opened_dir_target(Path(end.path)))
    registry = await stack.enter_async_context(opened_registry(settings, terms_of(both.target_access)))
    ref = registry.hosts.candidates(end.name)[0].reference
    sources = (name.path,) if name is not None and name.domain == ref.domain else ()
    return RegistryTarget(
        registry, Destination(ref, shown_of(both.target_access), sources, find_directory(with_home(os.environ)))
    )


@contextlib.asynccontextmanager
async def _trust(settings: "Settings") -> AsyncIterator[Any]:
    from criollo.engine.images import open_policies
    from criollo.images.copysources import Trust
    from criollo.images.workplace import workplace
    from criollo.linux.home import with_home
    from criollo.registry.registries_d import find_directory
    from criollo.trust.judge import Judge

    async with workplace(_scratch(settings), "kpod-copy") as scratch:
        judge = Judge(open_policies(settings, os.environ), scratch=scratch / "gpg")
        yield Trust(judge, find_directory(with_home(os.environ)))


def _scratch(settings: "Settings") -> Path:
    """Where large files wait: not /tmp, which is memory on many nodes."""
    return Path(settings.image.big_files_temporary_dir or os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108
