"""`kpod registry explain` without a network: what it reads, what it says, what it never shows."""

import json
from pathlib import Path

import pytest
from kpod_fake import Kpod


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with its own files; nothing of the real one is read but system drop-ins that these replace."""
    conf = tmp_path / "registries.conf"
    conf.write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".config/containers").mkdir(parents=True)
    (tmp_path / ".config/containers/policy.json").write_text(
        '{"default":[{"type":"reject"}],"transports":{"docker":{"r.example":[{"type":"insecureAcceptAnything"}]}}}'
    )
    return tmp_path


def test_secrets_of_files_and_proxies_are_never_shown(home: Path, kpod: Kpod, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "auth.json").write_text('{"auths":{"r.example":{"username":"alice","password":"hunter2"}}}')
    monkeypatch.setenv("HTTPS_PROXY", "http://alice:hunter2@proxy.example:3128")
    for options in ((), ("--json",)):
        said = kpod("registry", "explain", *options, "r.example/app")
        assert said.status == 0
        assert "proxy.example:3128" in said.out
        assert "auths[r.example]" in said.out
        assert "hunter2" not in said.out + said.err


def test_json_has_every_step_and_the_scope_of_the_policy(home: Path, kpod: Kpod) -> None:
    (home / "registries.conf").write_text(
        '[[registry]]\nprefix = "r.example/team"\nlocation = "s.example/moved"\n'
        '[[registry.mirror]]\nlocation = "m.example:5000"\ninsecure = true\n'
    )
    (meaning,) = json.loads(kpod("registry", "explain", "--json", "r.example/team/app:1").out)["meanings"]
    assert [(step["kind"], step["url"], step["encryption"]) for step in meaning["steps"]] == [
        ("mirror", "https://m.example:5000/v2/app", "unverified TLS, else none"),
        ("registry", "https://s.example/v2/moved/app", "verified TLS"),
    ]
    assert (meaning["policy"]["scope"], meaning["policy"]["demands"]) == ("r.example", ["insecureAcceptAnything"])


def test_the_policy_of_a_namespace_is_shown_with_what_it_demands(home: Path, kpod: Kpod) -> None:
    (home / "policies").mkdir()
    (home / "policies/shop.json").write_text('{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}]}')
    (home / "crio.conf").write_text(f'[crio.image]\nsignature_policy_dir = "{home}/policies"\n')
    said = kpod("-c", str(home / "crio.conf"), "registry", "explain", "--namespace", "shop", "r.example/app")
    assert f"policy: {home}/policies/shop.json, scope 'default' demands signedBy (keys, matchRepoDigestOrExact)" in said.out
    assert "policy.json, scope 'r.example' demands insecureAcceptAnything" in kpod("registry", "explain", "r.example/app").out


def test_a_name_that_means_too_much_is_explained_and_refused(home: Path, kpod: Kpod) -> None:
    (home / "registries.conf").write_text('unqualified-search-registries = ["a.example", "b.example"]')
    said = kpod("registry", "explain", "app")
    assert said.status == 1
    assert "refused: image: got 'app'" in said.out
    assert "b.example/app:latest  (unqualified-search-registries)" in said.out


def test_a_blocked_name_says_by_what(home: Path, kpod: Kpod) -> None:
    (home / "registries.conf").write_text('[[registry]]\nlocation = "r.example"\nblocked = true')
    said = kpod("registry", "explain", "r.example/app")
    assert said.status == 1
    assert "registries.conf blocks r.example" in said.out


def test_a_broken_auth_file_is_a_problem_and_no_end(home: Path, kpod: Kpod) -> None:
    (home / "auth.json").write_text("hunter2")
    said = kpod("registry", "explain", "r.example/app")
    assert "problem of https://r.example/v2/app" in said.out
    assert "hunter2" not in said.out


def test_what_a_file_says_cannot_move_the_cursor(home: Path, kpod: Kpod) -> None:
    (home / "auth.json").write_text('{"auths":{"r.example/\\u001b[31m":{"username":"a","password":"b"}},"credsStore":7}')
    assert "\x1b" not in kpod("registry", "explain", "r.example/app").out
