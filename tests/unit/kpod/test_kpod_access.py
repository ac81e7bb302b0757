"""The flags of registries: the same for every verb, checked here, sent along."""

import base64
import json
from pathlib import Path

import pytest
from kpod_fake import IMAGE_ID, FakeNode, Kpod

AUTH = base64.b64encode(b"me:pass").decode()


@pytest.fixture
def auth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    (tmp_path / "registries.conf").write_text("")
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {"h.example": {"auth": AUTH}, "t.example": {"auth": AUTH, "identitytoken": "tok"}}}))
    return path


def test_a_file_of_ones_own_is_looked_up_here(kpod: Kpod, node: FakeNode, auth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kpod("pull", "-q", "--authfile", auth, "h.example/x:1").status == 0
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(auth))
    kpod("pull", "-q", "h.example/x:1", "t.example/y:1", "other.example/z:1")
    shown = [(each.auth.username, each.auth.password, each.auth.identity_token) for each in node.named("PullImage")]
    assert shown == [("me", "pass", ""), ("me", "pass", ""), ("me", "pass", "tok"), ("", "", "")]


def test_a_program_of_that_file_is_run_here(
    kpod: Kpod, node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "docker-credential-mine"
    program.write_text('#!/bin/sh\necho \'{"Username":"prog","Secret":"s"}\'\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "a.json").write_text('{"credHelpers":{"h.example":"mine"}}')
    said = kpod("pull", "-q", "--authfile", tmp_path / "a.json", "h.example/x:1")
    assert said.status == 0, said.err
    assert node.named("PullImage")[0].auth.username == "prog"


def test_terms_and_platforms_go_by_the_route_that_knows_them(kpod: Kpod, node: FakeNode, tmp_path: Path) -> None:
    node.add_image("x:1")
    node.http_answers["/images/pull"] = json.dumps({"id": IMAGE_ID}).encode()
    words = ("--platform", "linux/arm64", "--tls-verify", "false", "--cert-dir", tmp_path, "--creds", "me:pass")
    assert kpod("pull", "-q", *words, "docker://x:1").out == f"{IMAGE_ID}\n"
    [request] = node.http_requests
    assert (request.path, request.query) == ("/images/pull", {"image": ["x:1"]})
    said = {"platform": "linux/arm64", "tls_verify": False, "cert_dir": str(tmp_path), "username": "me", "password": "pass"}
    assert json.loads(request.body) == said
    assert node.named("PullImage") == []


def test_a_push_tells_its_terms(kpod: Kpod, node: FakeNode, auth: Path) -> None:
    node.http_answers["/images/push"] = b'{"type":"result","digest":"d"}\n'
    assert kpod("push", "-q", "--tls-verify", "true", "--authfile", auth, "x:1", "h.example/x:1").status == 0
    body = json.loads(node.http_requests[0].body)
    assert (body["tls_verify"], body["cert_dir"], body["username"]) == (True, "", "me")


@pytest.mark.parametrize(
    "words", [("--authfile", "/none"), ("--cert-dir", "/none"), ("--tls-verify", "perhaps"), ("--creds", ":x")]
)
def test_what_cannot_be_is_refused_before_anything_is_asked(kpod: Kpod, node: FakeNode, words: tuple[str, str]) -> None:
    for verb in (("pull", "x"), ("push", "x"), ("inspect", "--remote", "x"), ("verify", "x")):
        assert kpod(*verb, *words).status in (1, 2)
    assert (node.calls, node.http_requests) == ([], [])


def test_they_are_for_registries_only(kpod: Kpod, node: FakeNode, tmp_path: Path) -> None:
    assert kpod("push", "--creds", "me:x", "y", f"dir:{tmp_path}/d").status == 2
    assert kpod("inspect", "--tls-verify", "false", "x").status == 2


def test_one_that_fails_does_not_stop_the_others(kpod: Kpod, node: FakeNode) -> None:
    node.add_image("here:1")
    said = kpod("inspect", "-t", "image", "-f", "{{.status.id}}", "none", "here:1")
    assert (said.status, said.out) == (1, f"{IMAGE_ID}\n")
    assert "none" in said.err
