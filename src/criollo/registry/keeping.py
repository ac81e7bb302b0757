"""Credentials on their way into auth.json, and out of it: what `kpod login` and `kpod logout` do, after asking the registry.

The file is containers': 0600, replaced whole, and what else stands in it stays. Where it names a program for the registry, the
program keeps the secret and the file does not. All of it but `check` may be repeated.

Source: containers-auth.json(5); the protocol of docker-credential-helpers.
"""

import base64
import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from criollo.aio import process, threads
from criollo.errors import CriolloError, Invalid, Unauthenticated, explain
from criollo.linux import files
from criollo.oci import document
from criollo.oci.reference import Reference
from criollo.registry import auth_files
from criollo.registry.answers import Question
from criollo.registry.auth import Credentials
from criollo.registry.client import Registry
from criollo.registry.endpoints import Endpoint
from criollo.registry.exchange import Exchange
from criollo.registry.programs import LIMIT_S, PREFIX

_DOCKER_INDEX: Final = "https://index.docker.io/v1/"
_MAX_BYTES: Final = 4 << 20


class Place(NamedTuple):
    """A key of auth.json, which is a host or a namespace there, and the host."""

    key: str
    host: str


def place_of(text: str) -> Place:
    """What a registry is called by a person: a host, perhaps with a scheme, perhaps with a namespace.

    Raises:
        Invalid: it is none.
    """
    key = text.removeprefix("https://").removeprefix("http://").rstrip("/")
    host = key.partition("/")[0]
    try:
        ref = Reference.parse(f"{key}/any", field="registry")
    except Invalid:
        raise Invalid("registry", text, "HOST[:PORT][/NAMESPACE]") from None
    if ref.domain != host and host != "index.docker.io":
        raise Invalid("registry", text, "HOST[:PORT][/NAMESPACE], with a dot or a port in HOST, or localhost")
    return Place(f"docker.io{key[len(host) :]}" if host == "index.docker.io" else key, ref.domain)


async def check(registry: Registry, place: Place, credentials: Credentials) -> None:
    """Ask the registry whether it takes the credentials.

    Raises:
        Unauthenticated: it does not.
        Unavailable: it does not answer.
    """

    def talk(exchange: Exchange, _: Endpoint) -> None:
        endpoint = registry.hosts.on_host(place.host)
        exchange.ask(Question(endpoint=endpoint, path="", place="/v2/", actions="", credentials=credentials)).close()

    await registry.converse(Reference.parse(f"{place.host}/any"), talk)


async def keep(path: Path, place: Place, credentials: Credentials, environ: Mapping[str, str]) -> str:
    """Keep credentials for a registry; says where they are.

    Raises:
        Invalid: the file is malformed.
        Unauthenticated: the program that it names fails.
        HostFailed, Exhausted: it cannot be written.
    """
    program, server = await threads.files(_program_for, path, place)
    if program:
        said = {"ServerURL": server, "Username": credentials.username, "Secret": credentials.password}
        await _run(program, "store", msgspec.json.encode(said), environ)
        return f"{PREFIX}{program}"

    def add(auths: dict[str, Any]) -> bool:
        auths[place.key] = {"auth": base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()}
        return True

    await threads.files(_change, path, add)
    return str(path)


async def forget(path: Path, place: Place, environ: Mapping[str, str]) -> bool:
    """Drop the credentials for a registry; False when there were none. Raises as `keep`."""
    program, server = await threads.files(_program_for, path, place)
    if program:
        await _run(program, "erase", server.encode(), environ)
        return True
    return await threads.files(_change, path, lambda auths: auths.pop(place.key, None) is not None)


async def forget_all(path: Path, environ: Mapping[str, str]) -> list[str]:
    """Drop all that the file has, and what the programs have that it names; gives the registries. Raises as `keep`."""
    file = await threads.files(auth_files.read, path)
    for server, program in file.programs.items() if file is not None else ():
        await _run(program, "erase", server.encode(), environ)
    gone: list[str] = []

    def clear(auths: dict[str, Any]) -> bool:
        gone.extend(auths)
        auths.clear()
        return bool(gone)

    await threads.files(_change, path, clear)
    return [*(file.programs if file is not None else ()), *gone]


def _program_for(path: Path, place: Place) -> tuple[str, str]:
    """The program that keeps a registry's secrets and the registry's name for it; nothing where the file does. Blocking."""
    file = auth_files.read(path)
    if file is None:
        return "", ""
    if place.host in file.programs:
        return file.programs[place.host], place.host
    return file.store, _DOCKER_INDEX if place.host == "docker.io" else place.host


async def _run(program: str, verb: str, said: bytes, environ: Mapping[str, str]) -> None:
    name = PREFIX + program
    what = f"cannot {verb} credentials with {name}"
    try:
        ended = await process.attempt(
            process.Program([name, verb], env={**process.MINIMAL_ENV, **environ}), what=what, timeout_s=LIMIT_S, stdin=said
        )
    except CriolloError:
        raise Unauthenticated(f"{what}: it is not there, or took too long; run it by hand to see why") from None
    if ended.status != 0:
        raise Unauthenticated(f"{what}: it ended with status {ended.status}; run it by hand to see why")


def _change(path: Path, change: Callable[[dict[str, Any]], bool]) -> bool:
    """Let `change` work on the file's `auths`; written only when it says so. Blocking."""
    with explain(f"write {path}"):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(path.parent):
            try:
                raw = files.read_limited(path, _MAX_BYTES)
            except FileNotFoundError:
                raw = b"{}"
            table = document.parse_object(raw or b"{}", what=str(path), limit_bytes=_MAX_BYTES)
            auths = table.get("auths") or {}
            if not isinstance(auths, dict):
                raise Invalid(f"{path}: auths", type(auths).__name__, "an object")
            if not change(auths):
                return False
            content = msgspec.json.format(msgspec.json.encode({**table, "auths": auths}), indent=2)
            files.write_atomic(os.path.realpath(path), content + b"\n", 0o600, durable=True)
            return True


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Nobody else changes a file in the directory by these functions meanwhile."""
    with files.opened_directory(os.path.realpath(directory)) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
