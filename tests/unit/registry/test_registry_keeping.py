"""Credentials into auth.json and out of it: nothing else in the file changes, and only the owner reads it."""

import asyncio
import json
import os
import stat
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.asking import ask
from support.registry import PASSWORD, USERNAME, run_registry

from criollo.aio import threads
from criollo.errors import CriolloError, Invalid, Unauthenticated
from criollo.registry import auth_files
from criollo.registry.auth import Credentials
from criollo.registry.client import Registry
from criollo.registry.endpoints import Endpoint
from criollo.registry.hosts import Hosts
from criollo.registry.keeping import Place, check, forget, forget_all, keep, place_of
from criollo.registry.terms import Terms

T = TypeVar("T")
ALICE = Credentials(username=USERNAME, password=PASSWORD)
HERE = Place("h.example:5000", "h.example:5000")


def run(work: Coroutine[Any, Any, T]) -> T:
    async def main() -> T:
        try:
            return await work
        finally:
            threads.close()

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("quay.io", ("quay.io", "quay.io")),
        ("https://quay.io/", ("quay.io", "quay.io")),
        ("localhost:5000/team", ("localhost:5000/team", "localhost:5000")),
        ("docker.io", ("docker.io", "docker.io")),
        ("index.docker.io", ("docker.io", "docker.io")),
    ],
)
def test_what_a_registry_is_called(text: str, place: tuple[str, str]) -> None:
    assert place_of(text) == place


@pytest.mark.parametrize("text", ["", "team", "UPPER/x y", "h.example/UPPER", "a b.c"])
def test_what_is_no_registry(text: str) -> None:
    with pytest.raises(Invalid, match="registry"):
        place_of(text)


@given(st.text(max_size=40))
def test_any_text_is_a_registry_or_refused(text: str) -> None:
    try:
        place = place_of(text)
    except CriolloError:
        return
    assert place.host


def test_what_is_kept_is_found_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "made/auth.json"
    assert run(keep(path, HERE, ALICE, {})) == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    document = json.loads(path.read_text()) | {"else": {"x": 1}}
    document["auths"]["other.example"] = {"auth": "YTpi"}
    path.write_text(json.dumps(document))
    assert auth_files.lookup([path], Endpoint(host=HERE.host, repository="a/b")) == ALICE
    assert run(forget(path, HERE, {})) is True
    assert run(forget(path, HERE, {})) is False
    assert json.loads(path.read_text()) == {"auths": {"other.example": {"auth": "YTpi"}}, "else": {"x": 1}}
    assert run(forget_all(path, {})) == ["other.example"]
    assert os.listdir(path.parent) == ["auth.json"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("{}")
    (tmp_path / "auth.json").symlink_to("real")
    run(keep(tmp_path / "auth.json", HERE, ALICE, {}))
    assert (tmp_path / "auth.json").is_symlink()
    assert HERE.key in (tmp_path / "real").read_text()


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": 3}'])
def test_a_file_that_is_none_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").write_text(text)
    with pytest.raises(CriolloError):
        run(keep(tmp_path / "a", HERE, ALICE, {}))
    assert (tmp_path / "a").read_text() == text


def test_a_program_that_is_not_there_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"credsStore": "none-such"}')
    with pytest.raises(Unauthenticated, match="docker-credential-none-such") as raised:
        run(keep(tmp_path / "a", HERE, ALICE, {}))
    assert PASSWORD not in str(raised.value)
    assert PASSWORD not in (tmp_path / "a").read_text()


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_the_registry_is_asked(auth: str) -> None:
    async def talk(client: Registry) -> None:
        await check(client, place_of(registry.host), ALICE)
        with pytest.raises(Unauthenticated):
            await check(client, place_of(registry.host), Credentials(username=USERNAME, password="x"))

    with run_registry(auth) as registry:
        ask(Hosts().on(Terms(verify=False)), talk)


def test_a_registry_that_takes_no_pushes_is_asked_too(tmp_path: Path) -> None:
    with run_registry("basic") as registry:
        (tmp_path / registry.host).mkdir()
        (tmp_path / registry.host / "hosts.toml").write_text(
            f'server = "http://{registry.host}"\ncapabilities = ["pull", "resolve"]\n'
        )
        hosts = Hosts(directories=[tmp_path]).on(Terms(verify=False))
        ask(hosts, lambda client: check(client, place_of(registry.host), ALICE))
