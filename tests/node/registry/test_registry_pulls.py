"""Whole pulls by way of mirrors, certificates and credentials: Debian's docker-registry, real workers, real programs."""

import asyncio
import base64
import hashlib
import json
import logging
from pathlib import Path

import pytest
from support.bad_registry import cut_after, drip, extra, flip, hang, run_bad_registry, status
from support.image_store import image_store
from support.images import file, make_image, push
from support.registry import DEAD_HOST, PASSWORD, USERNAME, run_registry

from criollo.errors import Denied, Invalid, NotFound, Unauthenticated
from criollo.images.pull import pull_image
from criollo.kpod.main import run
from criollo.model.container import ImageSpec
from criollo.registry.client import Registry
from criollo.registry.connections import Limits
from criollo.registry.hosts import Hosts
from criollo.trust.judge import Judge
from criollo.trust.policies import Policies
from criollo.trust.policy import Policy
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node

QUICK = Limits(connect_s=5, idle_s=1, document_s=5, rounds=2, backoff_s=0.01, longest_wait_s=1)
IMAGE = make_image([[file("a", "b" * 200_000)], [file("c", "d" * 100_000)]])
AUTH = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()


@pytest.fixture(scope="module")
def upstream():
    with run_registry() as registry:
        push(registry, "team/app", "v1", IMAGE)
        yield registry


@pytest.fixture(scope="module")
def guarded():
    with run_registry("basic", tls=True) as registry:
        push(registry, "team/app", "v1", IMAGE)
        yield registry


@pytest.fixture(scope="module")
def behind_tokens():
    with run_registry("token") as registry:
        push(registry, "team/app", "v1", IMAGE)
        yield registry


@pytest.fixture
def mirror():
    with run_bad_registry() as registry:
        registry.add("team/app", "v1", IMAGE)
        yield registry


@pytest.fixture
def hosts(tmp_path):
    def load(text, **more):
        conf = tmp_path / "registries.conf"
        conf.write_text(text)
        return Hosts.load(conf, **more)

    return load


def mirrored(upstream, *mirrors):
    text = f'[[registry]]\nlocation = "{upstream.host}"\ninsecure = true\n'
    return text + "".join(f'[[registry.mirror]]\nlocation = "{each}"\ninsecure = true\n' for each in mirrors)


def pull(root: Path, hosts, text, *, namespace="", auth_paths=(), environ=None, auth_dir=None, policy=None):
    """Pull into a store of our own; the id, or the error."""

    async def inside(images):
        async with images.workers:
            await images.layers.open()
            images.hosts = hosts
            images.registry = Registry(hosts, user_agent="t", limits=QUICK, auth_paths=auth_paths, environ=environ or {})
            images.namespaced_auth_dir = auth_dir
            if policy is not None:
                images.judge = Judge(Policies.of(policy), scratch=root / "trust")
            try:
                async with asyncio.timeout(120):
                    return await pull_image(images, ImageSpec(image=text, user_specified_image=text), namespace=namespace)
            finally:
                await images.registry.close()
                await images.pulls.close(limit_s=0)

    root.mkdir(exist_ok=True)
    with image_store(root, workers=Workers()) as images:
        return asyncio.run(inside(images))


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        *[("/manifests/", flip(5)), ("/manifests/", status(503)), ("/manifests/", hang()), ("/manifests/", status(429))],
        *[("/blobs/", flip(2)), ("/blobs/", flip(60)), ("/blobs/", flip(-1)), ("/blobs/", extra()), ("/blobs/", cut_after(40))],
        *[("/blobs/", drip(0.05)), ("/blobs/", status(404)), ("/blobs/", extra(b"x" * 70_000, chunked=True))],
    ],
)
def test_whatever_a_mirror_does_the_registry_serves(tmp_path, upstream, mirror, hosts, part, fault):
    mirror.break_at(part, fault)
    found = pull(tmp_path, hosts(mirrored(upstream, mirror.host)), upstream.reference("team/app", "v1"))
    assert found == IMAGE.id
    assert mirror.asked(part)


def test_a_good_mirror_saves_the_registry_all_questions(tmp_path, mirror, hosts):
    dead = DEAD_HOST
    text = f'[[registry]]\nprefix = "r.example"\nlocation = "{dead}"\ninsecure = true\n'
    text += f'[[registry.mirror]]\nlocation = "{mirror.host}"\ninsecure = true\n'
    assert pull(tmp_path, hosts(text), "r.example/team/app:v1") == IMAGE.id


def test_two_bad_mirrors_and_a_dead_one(tmp_path, upstream, mirror, hosts):
    with run_bad_registry() as other:
        other.add("team/app", "v1", IMAGE)
        for each in (mirror, other):
            each.break_at("/blobs/", flip(60))
        listed = (DEAD_HOST, mirror.host, other.host)
        assert pull(tmp_path, hosts(mirrored(upstream, *listed)), upstream.reference("team/app", "v1")) == IMAGE.id


def program(directory, name, username, secret):
    path = directory / f"docker-credential-{name}"
    answer = json.dumps({"ServerURL": "x", "Username": username, "Secret": secret})
    path.write_text(f"#!/bin/sh\ncat <<'EOT'\n{answer}\nEOT\n")
    path.chmod(0o755)
    return {"PATH": f"{directory}:/usr/bin:/bin"}


def trusted(tmp_path, registry):
    place = tmp_path / "certs.d" / registry.host
    place.mkdir(parents=True)
    (place / "ca.crt").write_bytes(registry.ca.read_bytes())
    return [tmp_path / "certs.d"]


def test_tls_by_certs_d_and_a_password_from_a_program(tmp_path, guarded):
    environ = program(tmp_path, "x", USERNAME, PASSWORD)
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"credHelpers": {guarded.host: "x"}}))
    hosts = Hosts(directories=trusted(tmp_path, guarded))
    text = guarded.reference("team/app", "v1")
    assert pull(tmp_path / "store", hosts, text, auth_paths=[auth], environ=environ) == IMAGE.id
    with pytest.raises(Unauthenticated, match=guarded.host):
        pull(tmp_path / "other", hosts, text)


def test_hosts_toml_leads_to_a_registry_behind_tls(tmp_path, guarded):
    """A dead mirror first, then one with its own authority, whose login stands under its own name."""
    place = tmp_path / "certs.d" / "r.example"
    place.mkdir(parents=True)
    (place / "own.pem").write_bytes(guarded.ca.read_bytes())
    (place / "hosts.toml").write_text(
        f'[host."https://{DEAD_HOST}"]\n[host."https://{guarded.host}"]\nca = "own.pem"\ncapabilities = ["pull", "resolve"]\n'
    )
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"auths": {f"{guarded.host}/team": {"auth": AUTH}}}))
    hosts = Hosts(directories=[tmp_path / "certs.d"])
    assert pull(tmp_path / "store", hosts, "r.example/team/app:v1", auth_paths=[auth]) == IMAGE.id


def test_credentials_of_a_namespace_serve_one_pull(tmp_path, behind_tokens, hosts):
    text = behind_tokens.reference("team/app", "v1")
    digest = hashlib.sha256(text.rpartition(":")[0].encode()).hexdigest()
    directory = tmp_path / "auth"
    directory.mkdir()
    (directory / f"shop-{digest}.json").write_text(json.dumps({"auths": {behind_tokens.host: {"auth": AUTH}}}))
    found = hosts(behind_tokens.registries_conf())
    with pytest.raises(Unauthenticated):
        pull(tmp_path / "a", found, text, namespace="other", auth_dir=directory)
    assert pull(tmp_path / "b", found, text, namespace="shop", auth_dir=directory) == IMAGE.id
    assert [path.name for path in directory.rglob("*.json")] == []
    with pytest.raises(Unauthenticated):
        pull(tmp_path / "c", found, text, namespace="shop", auth_dir=directory)


def test_a_short_name_is_tried_at_each_registry_of_the_list(tmp_path, upstream, mirror, hosts):
    conf = f'unqualified-search-registries = ["{mirror.host}", "{upstream.host}"]\n'
    for registry in (mirror, upstream):
        conf += f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n'
    mirror.break_at("/", status(404))
    trying = f'short-name-mode = "permissive"\n{conf}'
    assert pull(tmp_path / "a", hosts(trying), "team/app:v1") == IMAGE.id
    with pytest.raises(NotFound, match="team/app:v9"):
        pull(tmp_path / "b", hosts(trying), "team/app:v9")
    with pytest.raises(Invalid, match="a full name"):
        pull(tmp_path / "c", hosts(conf), "team/app:v1")


def test_a_policy_may_refuse_one_meaning_and_let_the_next(tmp_path, upstream, mirror, hosts):
    conf = f'short-name-mode = "permissive"\nunqualified-search-registries = ["{mirror.host}", "{upstream.host}"]\n'
    for registry in (mirror, upstream):
        conf += f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n'
    scopes = {"docker": {upstream.host: [{"type": "insecureAcceptAnything"}]}}
    policy = Policy.parse(json.dumps({"default": [{"type": "reject"}], "transports": scopes}).encode(), where="p")
    assert pull(tmp_path / "a", hosts(conf), "team/app:v1", policy=policy) == IMAGE.id
    assert mirror.requests == []
    with pytest.raises(Denied):
        pull(tmp_path / "b", hosts(conf), f"{mirror.host}/team/app:v1", policy=policy)


def test_https_never_becomes_http_for_a_token(tmp_path):
    """A registry over TLS that names a token server over plain HTTP gets no password there."""
    with run_registry("token", tls=True) as registry:
        auth = tmp_path / "auth.json"
        auth.write_text(json.dumps({"auths": {registry.host: {"auth": AUTH}}}))
        hosts = Hosts(directories=trusted(tmp_path, registry))
        with pytest.raises(Unauthenticated, match="over plain HTTP"):
            pull(tmp_path / "store", hosts, registry.reference("team/app", "v1"), auth_paths=[auth])
        assert registry.tokens.requests == []


# kpod registry explain ------------------------------------------------------------------------------------------------


@pytest.fixture
def explain(tmp_path, guarded, monkeypatch, capsys):
    """`kpod registry explain` on a host of our own, with a dead mirror before a guarded registry."""
    home = tmp_path / "home"
    place = home / ".config/containers/certs.d" / guarded.host
    place.mkdir(parents=True)
    (place / "ca.crt").write_bytes(guarded.ca.read_bytes())
    (home / ".config/containers/policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    conf = home / ".config/containers/registries.conf"
    dead = DEAD_HOST
    conf.write_text(
        f'[[registry]]\nprefix = "r.example"\nlocation = "{guarded.host}"\n'
        f'[[registry.mirror]]\nlocation = "{dead}"\ninsecure = true\n'
        '[[registry]]\nlocation = "bad.example"\nblocked = true\n'
    )
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"auths": {guarded.host: {"auth": AUTH}}}))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(auth))
    for name in ("CONTAINERS_REGISTRIES_CONF", "CONTAINERS_REGISTRIES_CONF_DIR", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments):
        status = run(["-c", "", "-d", "", "registry", "explain", *arguments])
        said = capsys.readouterr()
        assert PASSWORD not in said.out + said.err
        assert AUTH not in said.out + said.err
        return status, said.out, said.err

    root, ours = logging.getLogger(), logging.getLogger("criollo")
    before = root.handlers[:], root.level, ours.level
    yield call
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def test_a_probe_tells_what_each_server_answers(explain, guarded):
    status, out, _ = explain("--probe", "--json", "r.example/team/app:v1")
    (meaning,) = json.loads(out)["meanings"]
    dead, real = meaning["steps"]
    assert status == 0
    assert (dead["kind"], dead["answer"]["status"]) == ("mirror", "no answer")
    assert (real["kind"], real["answer"]["status"]) == ("registry", "ok")
    assert real["answer"]["digest"] == IMAGE.digest
    assert real["credentials"][0].startswith(f"auths[{guarded.host}] of ")
    assert real["credential"] == real["credentials"][0]
    assert real["certificates"][0].endswith("ca.crt")
    assert meaning["policy"]["scope"] == "default"


def test_the_table_has_the_order_and_the_reasons(explain, guarded):
    status, out, _ = explain("r.example/team/app:v1")
    assert status == 0
    rows = [line for line in out.splitlines() if line[:1] in ("1", "2")]
    assert "mirror of r.example" in rows[0]
    assert f"https://{guarded.host}/v2/team/app" in rows[1]
    assert "unverified TLS, else none" in rows[0]


@pytest.mark.parametrize(("name", "words"), [("bad.example/x", "blocks bad.example"), ("r.example/none:v1", "")])
def test_what_cannot_be_pulled_has_status_one(explain, name, words):
    status, out, _ = explain("--probe", name)
    assert status == 1
    assert words in out


def test_a_name_that_is_none_is_an_error(explain):
    status, _, err = explain("no such name")
    assert status == 1
    assert "image" in err
