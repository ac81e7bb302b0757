"""The flags of registries, with a daemon and alone: the person's files and words count wherever the work is done."""

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kpod_node import Kpod, Said
from support.images import busybox_image, file, make_image, make_index, push
from support.registry import PASSWORD, USERNAME, Registry, run_registry

pytestmark = [pytest.mark.node, pytest.mark.usefixtures("no_images_left")]


class Registries:
    """One that is open, and one with a password over TLS that no file of the node knows."""

    def __init__(self, public: Registry, private: Registry) -> None:
        self.public, self.private = public, private

    def registries_conf(self) -> str:
        return self.public.registries_conf()

    def reference(self, repository: str, tag: str = "latest") -> str:
        return self.public.reference(repository, tag)


@pytest.fixture(scope="module")
def registry() -> Iterator[Registries]:
    with run_registry() as public, run_registry("basic", tls=True) as private:
        push(public, "busybox", "latest", busybox_image())
        arm = make_image([[file("x", "arm")]], platform={"os": "linux", "architecture": "arm64", "variant": "v8"})
        push(public, "many", "v1", make_index([arm, busybox_image()]))
        push(public, "many", "v2", arm)
        push(private, "team/app", "v1", busybox_image())
        for tag in ("v1", "v2", "v3"):
            push(private, "team/many", tag, make_image([[file("x", tag)]]))
        yield Registries(public, private)


@pytest.fixture
def certificates(registry: Registries, tmp_path: Path) -> Path:
    assert registry.private.ca is not None
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs/ca.crt").write_bytes(registry.private.ca.read_bytes())
    return tmp_path / "certs"


def call(kpod: Kpod, *words: object, stdin: bytes = b"", **environ: object) -> Said:
    more = {key: str(value) for key, value in environ.items()}
    done = subprocess.run(
        kpod.argv(*words), env={**kpod.environment(), **more}, input=stdin, capture_output=True, timeout=120, check=False
    )
    return Said(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_several_images_and_what_is_not_there(kpod: Kpod, registry: Registries) -> None:
    answer = kpod("pull", "-q", kpod.image, registry.reference("nobody"), registry.reference("many", "v1"))
    assert answer.status == 1
    assert len(answer.out.splitlines()) == 2
    assert "nobody" in answer.err


def test_another_platform(kpod: Kpod, registry: Registries) -> None:
    name = registry.reference("many", "v1")
    answer = kpod("pull", "-q", "--platform", "linux/arm64", name)
    assert answer.status == 0, answer.err
    assert json.loads(kpod("inspect", "--config", name).out)["architecture"] == "arm64"
    assert kpod("pull", "-q", "--platform", "linux/s390x", name).status == 1
    assert kpod("pull", "-q", "--platform", "arm64", name).status == 1


def test_every_tag(kpod: Kpod, registry: Registries) -> None:
    answer = kpod("pull", "-q", "-a", registry.reference("many", "").rstrip(":"))
    assert answer.status == 0, answer.err
    listed = kpod("images", "--format", "{{.Tag}}").out.split()
    assert sorted(listed) == ["v1", "v2"]
    assert kpod("pull", "-a", registry.reference("many", "v1")).status == 1


@pytest.mark.parametrize("how", ["creds", "authfile", "environment"])
def test_every_tag_behind_a_password(kpod: Kpod, registry: Registries, certificates: Path, tmp_path: Path, how: str) -> None:
    name, auth = registry.private.reference("team/many", "").rstrip(":"), tmp_path / "auth.json"
    terms, environ = ("--cert-dir", certificates), {}
    refused = kpod("pull", "-q", "-a", *terms, "--creds", f"{USERNAME}:wrong", name)
    assert refused.status == 1
    assert "wrong" not in refused.err
    assert kpod("pull", "-q", "-a", *terms, name).status == 1
    login = call(kpod, "login", *terms, "--authfile", auth, "-u", USERNAME, "-p", PASSWORD, registry.private.host)
    assert login.status == 0, login.err
    words: tuple[object, ...] = {"creds": ("--creds", f"{USERNAME}:{PASSWORD}"), "authfile": ("--authfile", auth)}.get(how, ())
    if how == "environment":
        environ["REGISTRY_AUTH_FILE"] = auth
    answer = call(kpod, "pull", "-q", "-a", *terms, *words, name, **environ)
    assert answer.status == 0, answer.err
    assert len(answer.out.split()) == 3
    assert sorted(kpod("images", "--format", "{{.Tag}}").out.split()) == ["v1", "v2", "v3"]


@pytest.mark.parametrize("how", ["unverified", "certificates"])
def test_terms_of_tls_reach_whoever_does_the_work(kpod: Kpod, registry: Registries, certificates: Path, how: str) -> None:
    name = registry.private.reference("team/app", "v1")
    words = ["--creds", f"{USERNAME}:{PASSWORD}"]
    assert kpod("pull", "-q", *words, name).status == 1
    words += ["--tls-verify", "false"] if how == "unverified" else ["--cert-dir", str(certificates)]
    for verb in (("pull", "-q"), ("inspect", "--remote")):
        answer = kpod(*verb, *words, name)
        assert answer.status == 0, answer.err
    answer = kpod("push", "-q", *words, name, registry.private.reference(f"copies/{how}", "v1"))
    assert answer.status == 0, answer.err


def test_verifying_can_be_demanded_where_a_file_does_not(kpod: Kpod, registry: Registries) -> None:
    assert kpod("pull", "-q", "--tls-verify", "true", kpod.image).status == 1


def test_a_login_is_checked_kept_and_used(kpod: Kpod, registry: Registries, certificates: Path, tmp_path: Path) -> None:
    host, auth = registry.private.host, tmp_path / "own/auth.json"
    terms = ("--cert-dir", certificates)
    login = ("login", *terms, "-u", USERNAME, "--password-stdin", host)
    refused = call(kpod, *login, stdin=b"wrong\n", REGISTRY_AUTH_FILE=auth)
    assert refused.status == 1
    assert "refuses the credentials" in refused.err
    assert not auth.exists()
    assert call(kpod, *login, stdin=PASSWORD.encode() + b"\n", REGISTRY_AUTH_FILE=auth).status == 0
    assert stat.S_IMODE(auth.stat().st_mode) == 0o600
    assert call(kpod, "login", "--get-login", host, REGISTRY_AUTH_FILE=auth).out == f"{USERNAME}\n"
    name = registry.private.reference("team/app", "v1")
    assert call(kpod, "pull", "-q", *terms, name).status == 1
    assert call(kpod, "pull", "-q", *terms, name, REGISTRY_AUTH_FILE=auth).status == 0
    assert call(kpod, "pull", "-q", *terms, "--authfile", auth, name).status == 0
    target = registry.private.reference("copies/login", "v1")
    assert call(kpod, "push", "-q", *terms, "--authfile", auth, name, target).status == 0
    assert call(kpod, "logout", host, "--authfile", auth).status == 0
    assert json.loads(auth.read_text())["auths"] == {}
    assert call(kpod, "logout", host, "--authfile", auth).status == 1


def test_skopeo_reads_what_a_login_keeps(kpod: Kpod, registry: Registries, certificates: Path, tmp_path: Path) -> None:
    auth = tmp_path / "auth.json"
    words = ("login", "--authfile", auth, "--tls-verify", "false", "-u", USERNAME, "-p", PASSWORD, registry.private.host)
    answer = kpod(*words)
    assert answer.status == 0, answer.err
    argv = ["skopeo", "inspect", "--authfile", auth, "--cert-dir", certificates]
    argv.append(f"docker://{registry.private.reference('team/app', 'v1')}")
    assert subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode == 0


def test_a_program_keeps_what_the_file_gives_to_it(kpod: Kpod, registry: Registries, tmp_path: Path) -> None:
    programs, kept, auth = tmp_path / "bin", tmp_path / "kept", tmp_path / "auth.json"
    programs.mkdir()
    script = programs / "docker-credential-test"
    script.write_text(f"#!/bin/sh\ncase $1 in\nget) cat {kept};;\n*) {{ echo $1; cat; }} > {kept};;\nesac\n")
    script.chmod(0o755)
    auth.write_text(json.dumps({"credHelpers": {registry.private.host: "test"}, "else": 1}))
    path = {"PATH": f"{programs}:{os.environ['PATH']}"}
    login = ("login", "--authfile", auth, "--tls-verify", "false", "-u", USERNAME, "-p", PASSWORD, registry.private.host)
    assert call(kpod, *login, **path).status == 0
    said = kept.read_text().partition("\n")
    assert said[0] == "store"
    assert json.loads(said[2]) == {"ServerURL": registry.private.host, "Username": USERNAME, "Secret": PASSWORD}
    assert PASSWORD not in auth.read_text()
    kept.write_text(said[2])
    name = registry.private.reference("team/app", "v1")
    assert call(kpod, "pull", "-q", "--tls-verify", "false", "--authfile", auth, name, **path).status == 0
    assert call(kpod, "logout", "--authfile", auth, registry.private.host, **path).status == 0
    assert kept.read_text().startswith("erase\n")
