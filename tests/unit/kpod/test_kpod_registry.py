"""`kpod registry explain` without a network: what it reads, what it says, what it never shows."""

import asyncio
import hashlib
import json
from pathlib import Path

import pytest
from kpod_fake import Kpod

from criollo.errors import Forbidden
from criollo.kpod.registry import _ask
from criollo.oci.reference import Reference
from criollo.registry.endpoints import Endpoint


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with its own files; nothing of the real one is read but system drop-ins that these replace."""
    conf = tmp_path / "registries.conf"
    conf.write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF_DIR", f"{conf}.d")
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


def test_a_node_without_a_policy_says_that_nothing_may_be_pulled(
    home: Path, kpod: Kpod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("criollo.trust.policy.SYSTEM_FILE", home / "absent.json")
    (home / ".config/containers/policy.json").unlink()
    said = kpod("registry", "explain", "r.example/app")
    assert said.status == 1
    assert f"there is no signature policy {home}/.config/containers/policy.json or {home}/absent.json" in said.out
    assert '{"default":[{"type":"insecureAcceptAnything"}]}' in said.out


def test_mirrors_that_have_content_alone_are_shown_in_their_place(home: Path, kpod: Kpod) -> None:
    place = home / ".config/containers/certs.d/r.example"
    place.mkdir(parents=True)
    (place / "hosts.toml").write_text(
        '[host."https://nothing.example"]\ncapabilities = ["resolve"]\n'
        '[host."https://content.example"]\ncapabilities = ["pull"]\n'
        '[host."https://both.example"]\ncapabilities = ["pull", "resolve"]\n'
    )
    (meaning,) = json.loads(kpod("registry", "explain", "--json", "r.example/app:1").out)["meanings"]
    assert [(step["url"].split("/")[2], step["asked_for"]) for step in meaning["steps"]] == [
        ("content.example", "content"),
        ("both.example", "everything"),
        ("r.example", "everything"),
    ]


def test_a_registry_that_may_not_be_asked_for_names_is_shown_for_its_content(home: Path, kpod: Kpod) -> None:
    place = home / ".config/containers/certs.d/r.example"
    place.mkdir(parents=True)
    server = 'server = "https://s.example"\ncapabilities = ["pull"]\n'
    (place / "hosts.toml").write_text(server + '[host."https://both.example"]\ncapabilities = ["pull", "resolve"]\n')
    (meaning,) = json.loads(kpod("registry", "explain", "--json", "r.example/app:1").out)["meanings"]
    assert [(step["url"].split("/")[2], step["kind"], step["asked_for"]) for step in meaning["steps"]] == [
        ("both.example", "mirror", "everything"),
        ("s.example", "registry", "content"),
    ]


def test_the_credential_that_would_be_used_is_named_and_no_later_one(home: Path, kpod: Kpod) -> None:
    (home / "auth.json").write_text(
        '{"auths":{"r.example/app":{"username":"a","password":"hunter2"},"r.example":{"username":"b","password":"hunter3"}},'
        '"credHelpers":{"r.example":"vault"},"credsStore":"pass"}'
    )
    (home / "registries.conf").write_text('credential-helpers = ["containers-auth.json", "late"]')
    (step,) = json.loads(kpod("registry", "explain", "--json", "r.example/app").out)["meanings"][0]["steps"]
    assert step["credential"] == (
        f"docker-credential-vault (credHelpers of {home}/auth.json), else auths[r.example/app] of {home}/auth.json"
    )
    assert len(step["credentials"]) == 3


def test_credentials_that_wait_for_a_namespace_replace_the_files_and_stay(home: Path, kpod: Kpod) -> None:
    (home / "auth.json").write_text('{"auths":{"r.example":{"username":"b","password":"hunter2"}}}')
    (home / "ns").mkdir()
    waiting = home / "ns" / f"shop-{hashlib.sha256(b'r.example/app').hexdigest()}.json"
    waiting.write_text('{"auths":{"r.example":{"username":"a","password":"hunter2"}}}')
    (home / "crio.conf").write_text(f'[crio.image]\nnamespaced_auth_dir = "{home}/ns"\n')
    said = kpod("-c", str(home / "crio.conf"), "registry", "explain", "--namespace", "shop", "r.example/app:1")
    assert f"credentials for this pull alone: {waiting}" in said.out
    assert f"auths[r.example] of {waiting}" in said.out
    assert "auth.json" not in said.out
    assert "hunter2" not in said.out
    assert waiting.exists()
    assert f"auths[r.example] of {home}/auth.json" in kpod("registry", "explain", "r.example/app:1").out


def test_a_proxy_that_cannot_be_used_is_a_problem_and_no_end(home: Path, kpod: Kpod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://alice:hunter2@proxy.example:1080")
    said = kpod("registry", "explain", "r.example/app")
    assert "problem of https://r.example/v2/app: cannot use the proxy of HTTPS_PROXY: socks5:// is not supported" in said.out
    assert "hunter2" not in said.out + said.err


def test_a_registry_that_forbids_is_said_to_forbid() -> None:
    class Forbidding:
        async def probe(self, *_: object) -> tuple[float, str]:
            raise Forbidden("registry r forbids it")

    client, ref, endpoint = Forbidding(), Reference.parse("r.example/a:1"), Endpoint(host="r.example", repository="a")
    answer = asyncio.run(_ask(client, ref, endpoint, None))  # type: ignore[arg-type]
    assert answer.status == "forbidden"
