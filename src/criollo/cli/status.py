"""`crio status`: what a running daemon says of itself, asked over its socket.

Words and layout of `info` and `config` are CRI-O's, since scripts read them. Exit status 1 when nobody answers.
"""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from criollo.cli.ask import SocketConnection, ask
from criollo.commandline import program
from criollo.errors import CriolloError, Invalid, NotFound, Unavailable, explain, printable

_LONGEST_LINE: Final = 1 << 20
_AGAIN_S: Final = 0.5
_ALIASES: Final = {
    **{"c": "config", "g": "goroutines", "hp": "heap", "i": "info", "p": "pulls"},
    **dict.fromkeys(("container", "cs", "s"), "containers"),
}


class _Group(program.VerbGroup):
    """The verbs with the short names that they have at CRI-O."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, _ALIASES.get(cmd_name, cmd_name))


def status_group(default_socket: Callable[[click.Context], str]) -> click.Group:
    """The verb; `default_socket` finds the daemon's when none is named."""

    @click.group("status", cls=_Group)
    @click.option("-s", "--socket", metavar="SOCKET", help="The daemon's socket, if not the configured one.")
    @click.pass_context
    def status(context: click.Context, socket: str | None) -> None:
        """Show what a running daemon does."""
        context.obj = Path(socket or default_socket(context))

    for command in (_config, _containers, _goroutines, _heap, _info, _pulls):
        status.add_command(command)
    return status


@click.command("config")
@click.pass_obj
def _config(socket: Path) -> None:
    """Print the configuration that the daemon runs with."""
    click.echo(_get(socket, "/config").decode(), nl=False)


@click.command("info")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def _info(socket: Path, as_json: bool) -> None:
    """Print the daemon's cgroup and storage drivers and id mappings."""
    raw = _get(socket, "/info")
    if as_json:
        click.echo(json.dumps(_parsed(raw), indent=2))
        return
    found = _parsed(raw)
    for label, key in (
        ("cgroup driver", "cgroup_driver"),
        ("storage driver", "storage_driver"),
        ("storage graph root", "storage_root"),
        ("storage image", "storage_image"),
    ):
        click.echo(f"{label}: {printable(str(found.get(key, '')))}")
    for label, key in (("GID", "gids"), ("UID", "uids")):
        click.echo(f"default {label} mappings (format <container>:<host>:<size>):")
        for each in found.get("default_id_mappings", {}).get(key, []):
            click.echo(f"  {each.get('container_id')}:{each.get('host_id')}:{each.get('size')}")


@click.command("containers")
@click.option("-i", "--id", "container_id", default="", metavar="ID", help="The container, by its id or name.")
@click.pass_obj
def _containers(socket: Path, container_id: str) -> None:
    """Print what the daemon knows of a container."""
    if not container_id:
        raise Invalid("--id", container_id, "the id of a container")
    found = _parsed(_get(socket, f"/containers/{quote(container_id, safe='')}"))
    for label, key in (("name", "name"), ("pid", "pid"), ("image", "image"), ("image ref", "image_ref")):
        click.echo(f"{label}: {printable(str(found.get(key, '')))}")
    click.echo(f"created: {found.get('created_time', '')}")
    for label, key in (("labels", "labels"), ("annotations", "annotations"), ("CRI-O annotations", "crio_annotations")):
        click.echo(f"{label}:")
        for name, value in sorted((found.get(key) or {}).items()):
            click.echo(printable(f"  {name}: {value}"))
    for label, key in (("log path", "log_path"), ("graph root", "root"), ("sandbox", "sandbox")):
        click.echo(f"{label}: {printable(str(found.get(key, '')))}")
    click.echo(f"ips: {', '.join(printable(str(each)) for each in found.get('ip_addresses') or [])}")


@click.command("goroutines")
@click.pass_obj
def _goroutines(socket: Path) -> None:
    """Print what every thread and task of the daemon is at."""
    click.echo(_get(socket, "/debug/goroutines").decode("utf-8", "replace"), nl=False)


@click.command("heap")
@click.option("-f", "--file", "output", default="", metavar="FILE", help="Where to; '-' for stdout [crio-heap-<time>.out].")
@click.pass_obj
def _heap(socket: Path, output: str) -> None:
    """Write what lies in the daemon's memory, by types, to a file."""
    found = _get(socket, "/debug/heap")
    if output == "-":
        click.echo(found.decode("utf-8", "replace"), nl=False)
        return
    path = Path(output or f"crio-heap-{time.strftime('%Y%m%d%H%M%S')}.out")
    with explain(f"write the heap dump to {path}"):
        path.write_bytes(found)
    click.echo(f"Wrote heap dump to: {path}")


@click.command("pulls")
@click.option("-f", "--follow", is_flag=True, help="Show what happens, until an interrupt; with ID until that pull ends.")
@click.option("--cancel", is_flag=True, help="End the pull ID, and drop what it had fetched.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; when following, a document per line.")
@click.argument("pull_id", required=False, metavar="[ID]")
@click.pass_obj
def _pulls(socket: Path, pull_id: str | None, follow: bool, cancel: bool, as_json: bool) -> None:
    """Show the pulls in progress, or follow or end one. ID may be the whole reference."""
    if cancel:
        if not pull_id or follow:
            raise click.UsageError("--cancel wants the ID of a pull, and goes without --follow.")
        ask(socket, "DELETE", _path(socket, pull_id), {})
    elif follow and pull_id:
        _follow(socket, pull_id, as_json=as_json)
    elif follow:
        _follow_all(socket, as_json=as_json)
    else:
        found = [each for each in _list(socket) if pull_id in (None, each.get("id"), each.get("reference"))]
        if pull_id and not found:
            raise NotFound("pull", pull_id, "crio status pulls lists those that run")
        click.echo(json.dumps(found, indent=2) if as_json else "\n".join(_rows(found) or ["no pull is in progress"]))


def _follow(socket: Path, pull_id: str, *, as_json: bool) -> None:
    """Tell what happens to one pull.

    Raises:
        CriolloError: it failed.
    """
    reference = ""
    for line in _lines(socket, f"{_path(socket, pull_id)}/events"):
        event = _parsed(line)
        reference = event.get("reference", reference)
        if as_json:
            click.echo(json.dumps(event))
        else:
            click.echo(printable(_told(event, reference)))
        if event.get("type") == "error":
            raise CriolloError(f"pull of {reference} failed: {event.get('error', '')}")


def _follow_all(socket: Path, *, as_json: bool) -> None:
    """Tell of all pulls when something has changed, until an interrupt."""
    told: list[dict[str, Any]] | None = None
    while True:
        found = _list(socket)
        if found != told:
            told = found
            click.echo(json.dumps(found) if as_json else "\n".join(_rows(found) or ["no pull is in progress"]))
        time.sleep(_AGAIN_S)


def _list(socket: Path) -> list[dict[str, Any]]:
    found = _parsed(_get(socket, "/pulls"))
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _path(socket: Path, wanted: str) -> str:
    """Where a pull is found, by its id or, while one alone runs of it, by its reference."""
    ids = [str(each.get("id")) for each in _list(socket) if each.get("reference") == wanted]
    return f"/pulls/{quote(ids[0] if len(ids) == 1 else wanted, safe='')}"


def _rows(found: list[dict[str, Any]]) -> list[str]:
    lines = []
    for each in found:
        layers = each.get("layers", [])
        done, total = (sum(layer.get(key, 0) for layer in layers) for key in ("done", "size"))
        here = sum(layer.get("stage") == "here" for layer in layers)
        retries = sum(layer.get("retries", 0) for layer in layers)
        line = f"{each.get('id', '')}  {each.get('reference', '')}  {each.get('stage', '')}  "
        line += f"{here} of {len(layers)} layers, {done} of {total} bytes"
        lines.append(printable(line + (f", {retries} retries" if retries else "")))
    return lines


def _told(event: dict[str, Any], reference: str) -> str:
    kind, layer = event.get("type"), event.get("layer") or {}
    if kind == "layer":
        text = f"layer {layer.get('digest', '')[:19]} {layer.get('stage', '')} {layer.get('done', 0)} of {layer.get('size', 0)}"
        text += f" from {layer['source']}" if layer.get("source") else ""
        return text + (f", retry {layer['retries']}" if layer.get("retries") else "")
    if kind == "result":
        return f"image {event.get('image', '')}"
    return str({"begin": f"pull {reference}", "stage": f"stage {event.get('stage')}"}.get(str(kind), event.get("error", kind)))


def _get(socket: Path, path: str) -> bytes:
    return ask(socket, "GET", path, {})


def _lines(socket: Path, path: str) -> Iterator[bytes]:
    """The lines of an answer as they come.

    Raises:
        CriolloError: the daemon refuses; the text is its own.
        Unavailable: it went away.
    """
    with closing(SocketConnection(socket)) as connection:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.OK:
                raise CriolloError(printable(answer.read(4000).decode("utf-8", "replace").strip()) or f"nothing at {path}")
            while line := answer.readline(_LONGEST_LINE):
                yield line
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"cannot ask the daemon at {socket} for {path}: the connection ended ({error})") from error


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Unavailable(f"the daemon's answer cannot be read: {error}") from error
