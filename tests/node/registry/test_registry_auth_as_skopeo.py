"""Auth files mean here what they mean to skopeo: the same files lead to the same user at the registry's door."""

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.as_skopeo import skopeo_gets, we_get
from support.serving import Quiet, serving

from criollo.oci.reference import Reference
from criollo.registry.auth_files import find_auth_files
from criollo.registry.hosts import Hosts

pytestmark = pytest.mark.node

MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:" + "0" * 64, "size": 2}
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": MEDIA_TYPE, "config": CONFIG, "layers": []}).encode()
NOBODY = ":"  # what skopeo shows where it has nothing

RUN, OWN, DOCKER, LEGACY = "run/containers/auth.json", ".config/containers/auth.json", ".docker/config.json", ".dockercfg"
PROGRAMS = {
    "good": 'read server; echo "{\\"Username\\":\\"helper\\",\\"Secret\\":\\"of\\"}"',
    "none": 'echo "credentials not found in native keychain"; exit 1',
    "bad": "exit 3",
}


class Door:
    """A registry that lets everybody in who shows a user, and notes whom."""

    def __init__(self, root: Path, host: str, shown: set[str]) -> None:
        self.root, self.host, self.shown = root, host, shown
        self.home = root / "home"
        bin_directory = root / "bin"
        bin_directory.mkdir()
        for name, script in PROGRAMS.items():
            program = bin_directory / f"docker-credential-{name}"
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        path = f"{bin_directory}:{os.environ['PATH']}"
        self.environ = {"PATH": path, "HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home / "run")}

    def prepare(self, files: dict[str, Any], conf: str) -> Path:
        shutil.rmtree(self.home, ignore_errors=True)
        (self.home / "run").mkdir(parents=True)
        for name, content in files.items():
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text.replace("$R", self.host))
        written = self.root / "registries.conf"
        written.write_text(f'{conf}\n[[registry]]\nlocation = "{self.host}"\ninsecure = true\n')
        return written

    def theirs(self, conf: Path) -> tuple[bool, set[str]]:
        self.shown.clear()
        return skopeo_gets(f"{self.host}/team/app:1", self.environ, conf=conf), self.shown - {NOBODY}

    def ours(self, conf: Path) -> tuple[bool, set[str]]:
        self.shown.clear()

        def wanted() -> tuple[Hosts, Reference]:
            hosts = Hosts.load(conf)
            return hosts, hosts.candidates(f"{self.host}/team/app:1")[0].reference

        paths = find_auth_files(self.environ, os.geteuid())
        return we_get(wanted, environ=self.environ, auth_paths=paths), set(self.shown)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    shown: set[str] = set()

    class Handler(Quiet):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            said = self.headers.get("Authorization", "").partition(" ")[2]
            user = base64.b64decode(said).decode() if said else NOBODY
            shown.add(user)
            known = user != NOBODY
            body = MANIFEST if known and "manifests" in self.path else b"{}"
            headers = {"Content-Type": MEDIA_TYPE} | ({} if known else {"WWW-Authenticate": 'Basic realm="test"'})
            self.answer(200 if known else 401, body, headers)

    with serving(Handler) as port:
        yield Door(tmp_path_factory.mktemp("door"), f"127.0.0.1:{port}", shown)


def of(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(user.encode()).decode()}


def auths(**users: str) -> dict[str, Any]:
    return {"auths": {key.replace("R", "$R"): of(user) for key, user in users.items()}}


AUTH_FILES = 'credential-helpers = ["containers-auth.json", "good"]'
CASES: dict[str, tuple[Any, ...]] = {
    "nothing": ({},),
    "the file of this boot first": ({RUN: auths(R="a:p"), OWN: auths(R="b:p")},),
    "then the user's": ({OWN: auths(R="a:p"), DOCKER: auths(R="b:p")},),
    "then docker's": ({DOCKER: auths(R="a:p"), LEGACY: {"$R": of("b:p")}},),
    "then docker's old one": ({LEGACY: {"$R": of("a:p")}},),
    "an old key that is a URL": ({LEGACY: {"http://$R/v1/": of("a:p")}},),
    "an old key with a path": ({LEGACY: {"$R/v1/": of("a:p")}},),
    "a key that is a URL": ({RUN: {"auths": {"https://$R/v1/": of("a:p")}}},),
    "a key with a path": ({RUN: {"auths": {"$R/v1/": of("a:p")}}},),
    "the repository": ({RUN: {"auths": {"$R": of("a:p"), "$R/team": of("b:p"), "$R/team/app": of("c:p")}}},),
    "the namespace": ({RUN: {"auths": {"$R": of("a:p"), "$R/team": of("b:p"), "$R/te": of("c:p")}}},),
    "another repository": ({RUN: {"auths": {"$R/team/other": of("a:p")}}},),
    "a key with a tag": ({RUN: {"auths": {"$R/team/app:1": of("a:p")}}},),
    "another port": ({RUN: {"auths": {"127.0.0.1": of("a:p")}}},),
    "no password in it": ({RUN: auths(R="nothing"), OWN: auths(R="b:p")},),
    "no base64": ({RUN: {"auths": {"$R": {"auth": "%%%"}}}, OWN: auths(R="b:p")},),
    "base64 in lines": ({RUN: {"auths": {"$R": {"auth": "YTpw\nYXNz"}}}},),
    "base64 cut short": ({RUN: {"auths": {"$R": {"auth": "YTpwYQ"}}}},),
    "no user": ({RUN: auths(R=":p")},),
    "no password": ({RUN: auths(R="a:")},),
    "colons in the password": ({RUN: auths(R="a:p:q")},),
    "zeroes around the password": ({RUN: auths(R="a:\0p\0")},),
    "an entry of nothing": ({RUN: {"auths": {"$R": {}}}, OWN: auths(R="b:p")},),
    "a namespace of nothing": ({RUN: {"auths": {"$R/team": {}, "$R": of("a:p")}}},),
    "no table": ({RUN: {"auths": None}, OWN: auths(R="b:p")},),
    "keys in another case": ({RUN: {"Auths": {"$R": {"Auth": of("a:p")["auth"]}}}},),
    "further keys": ({RUN: {"auths": {"$R": {**of("a:p"), "email": "x", "y": {}}}, "HttpHeaders": {}, "z": [1]}},),
    "an empty file": ({RUN: "", OWN: auths(R="b:p")},),
    "no JSON": ({RUN: "{", OWN: auths(R="b:p")},),
    "no object": ({RUN: "[]"},),
    "another host's entry is broken": ({RUN: {"auths": {"a.example": {"auth": "%"}, "$R": of("a:p")}}},),
    "a program of the file": ({RUN: {"credHelpers": {"$R": "good"}, **auths(R="a:p")}},),
    "a program for a namespace": ({RUN: {"credHelpers": {"$R/team": "good"}, **auths(R="a:p")}},),
    "a program that has nothing": ({RUN: {"credHelpers": {"$R": "none"}}, OWN: auths(R="b:p")},),
    "a program first": ({RUN: auths(R="a:p")}, 'credential-helpers = ["good", "containers-auth.json"]'),
    "a program last": ({RUN: auths(R="a:p")}, AUTH_FILES),
    "a program last, and no file": ({}, AUTH_FILES),
    "a program alone": ({RUN: auths(R="a:p")}, 'credential-helpers = ["none"]'),
    "a program that fails first": ({RUN: auths(R="a:p")}, 'credential-helpers = ["bad", "containers-auth.json"]'),
    "no programs and no files": ({RUN: auths(R="a:p")}, "credential-helpers = []"),
}


@pytest.mark.parametrize("label", CASES)
def test_the_same_files_show_the_same_user(door: Door, label: str) -> None:
    files, *conf = CASES[label]
    path = door.prepare(files, *(conf or [""]))
    theirs = door.theirs(path)
    found, shown = door.ours(path)
    assert (found, shown - {NOBODY}) == theirs


MORE: dict[str, tuple[dict[str, Any], set[str]]] = {
    "user and password of their own": ({RUN: {"auths": {"$R": {"username": "a", "password": "p"}}}}, {"a:p"}),
    "docker's store": ({RUN: {"credsStore": "good"}}, {"helper:of"}),
    "the entry beside a program that has nothing": ({RUN: {"credHelpers": {"$R": "none"}, **auths(R="a:p")}}, {"a:p"}),
    "the entry beside a program that fails": ({RUN: {"credHelpers": {"$R": "bad"}, **auths(R="a:p")}}, {"a:p"}),
}


@pytest.mark.parametrize("label", MORE)
def test_where_we_take_more(door: Door, label: str) -> None:
    """What docker reads too, and what a broken program does not take away."""
    files, expected = MORE[label]
    path = door.prepare(files, "")
    assert door.theirs(path) == (False, set())
    found, shown = door.ours(path)
    assert (found, shown - {NOBODY}) == (True, expected)
