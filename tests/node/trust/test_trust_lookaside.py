"""Where signatures are looked for: files, web servers that lie and stall, mirrors, several files of registries.d."""

import base64
import json
import threading

import pytest
from support.serving import Quiet, serving
from support.signing import SIGSTORE, SigstoreKey, attach, payload, policy, put_signature, write_json
from support.trusting import REPOSITORY

from criollo.errors import Denied, Invalid, Unavailable
from criollo.oci.signature import MAX_SIGNATURES

pytestmark = pytest.mark.node


class Web:
    """A web server over a directory; `does` says what it does instead."""

    def __init__(self, root):
        self.root, self.does, self.asked = root, None, []

    def handler(self):
        web = self

        class Handler(Quiet):
            def do_GET(self):
                web.asked.append(self.path)
                if web.does is not None:
                    return web.does(self)
                path = web.root / self.path.lstrip("/")
                return self.answer(200, path.read_bytes()) if path.is_file() else self.answer(404)

        return Handler


@pytest.fixture
def web(tmp_path):
    server = Web(tmp_path / "web")
    with serving(server.handler()) as port:
        server.url = f"http://127.0.0.1:{port}/sigs"
        yield server


def by(keys):
    return {"type": "signedBy", "keyType": "GPGKeys", "keyData": base64.b64encode(keys.ring.export(keys.good)).decode()}


@pytest.fixture
def verdict(place, keys, web, tmp_path):
    """A signed image in a lookaside on the web; asks for it while the server does what it does."""

    def ask(answer=None, rule=None):
        place.write_places(lookaside=web.url, attachments=False)
        digest, name = place.image()
        put_signature(web.root / "sigs", REPOSITORY, digest, keys.sign(payload(digest, name), keys.good))
        web.does = answer
        rules = write_json(tmp_path / "policy.json", policy(rule or by(keys)))
        return place.verdict(rules, name, tmp_path / f"store{len(list(tmp_path.iterdir()))}")

    yield ask
    place.write_places(lookaside=f"file://{place.lookaside}", attachments=True)


def test_a_lookaside_on_the_web(verdict, web):
    assert verdict() is None
    assert [path.rpartition("/")[2] for path in web.asked] == ["signature-1", "signature-2"]


def test_nothing_there(verdict):
    assert isinstance(verdict(lambda handler: handler.answer(404)), Denied)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_fails_is_asked_again_and_then_named(verdict, web, status):
    error = verdict(lambda handler: handler.answer(status))
    assert isinstance(error, Unavailable)
    assert f"it answers {status}" in str(error)
    assert len(web.asked) > 1


@pytest.mark.parametrize("status", [403, 204, 418])
def test_a_server_that_says_something_else(verdict, web, status):
    error = verdict(lambda handler: handler.answer(status))
    assert isinstance(error, Unavailable)
    assert len(web.asked) == 1


def test_a_server_that_fails_once_is_forgiven(verdict, web):
    def once(handler):
        web.does = None
        handler.answer(503)

    assert verdict(once) is None


def test_a_signature_without_end(verdict):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65536)
        except OSError:
            handler.close_connection = True

    error = verdict(endless)
    assert isinstance(error, Invalid)
    assert "at most 4194304 bytes" in str(error)


def test_a_server_that_stalls(verdict):
    done = threading.Event()

    def stall(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.flush()
        done.wait(60)

    try:
        assert isinstance(verdict(stall), Unavailable)
    finally:
        done.set()


def test_signatures_without_end(verdict, web):
    error = verdict(lambda handler: handler.answer(200, b"\x90x"))
    assert isinstance(error, Invalid)
    assert len(web.asked) <= 130


def test_redirects_are_followed_but_not_for_ever(verdict, web):
    def once(handler):
        web.does = None
        handler.answer(302, headers={"Location": handler.path})

    assert verdict(once) is None
    assert isinstance(verdict(lambda handler: handler.answer(302, headers={"Location": handler.path})), Unavailable)


def test_a_redirect_to_a_file_is_not_followed(verdict):
    assert isinstance(verdict(lambda handler: handler.answer(302, headers={"Location": "file:///etc/passwd"})), Unavailable)


def test_an_accepting_policy_asks_nobody(verdict, web):
    assert verdict(rule={"type": "insecureAcceptAnything"}) is None
    assert web.asked == []


def test_a_huge_signature_in_a_file(place, keys, tmp_path):
    digest, name = place.image()
    put_signature(place.lookaside, REPOSITORY, digest, b"\x90" + bytes(5 << 20))
    rules = write_json(tmp_path / "policy.json", policy(by(keys)))
    assert isinstance(place.verdict(rules, name, tmp_path / "ours"), Invalid)


def test_a_signature_that_unpacks_to_more_than_it_may(place, keys, tmp_path):
    digest, name = place.image()
    text = payload(digest, name)[:-1] + b" " * (8 << 20) + b"}"
    put_signature(place.lookaside, REPOSITORY, digest, keys.sign(text, keys.good))
    assert not place.accepts(policy(by(keys)), name, tmp_path)


def test_a_directory_in_place_of_a_signature(place, keys, tmp_path):
    digest, name = place.image()
    path = put_signature(place.lookaside, REPOSITORY, digest, b"x")
    path.unlink()
    path.mkdir()
    rules = write_json(tmp_path / "policy.json", policy(by(keys)))
    assert isinstance(place.verdict(rules, name, tmp_path / "ours"), Invalid)


def test_a_malformed_registries_d_denies(place, keys, tmp_path):
    _, name = place.image()
    path = place.conf_d / "wrong.yaml"
    path.write_text("docker: 7")
    try:
        error = place.verdict(write_json(tmp_path / "policy.json", policy(by(keys))), name, tmp_path / "ours")
    finally:
        path.unlink()
    assert isinstance(error, Denied)
    assert "wrong.yaml" in str(error)


def test_attached_signatures_that_are_too_many(place, tmp_path):
    key = SigstoreKey.ecdsa()
    rule = {"type": "sigstoreSigned", "keyData": base64.b64encode(key.pem).decode()}
    digest, name = place.image()
    attach(place.registry, REPOSITORY, digest, [key.sign(payload(digest, name, SIGSTORE))] * (MAX_SIGNATURES + 1))
    rules = write_json(tmp_path / "policy.json", policy(rule))
    assert isinstance(place.verdict(rules, name, tmp_path / "ours"), Invalid)


def test_old_names_of_keys_and_a_scope_before_the_default(place, keys, tmp_path):
    digest, name = place.image()
    put_signature(tmp_path / "old", REPOSITORY, digest, keys.sign(payload(digest, name), keys.good))
    path = place.conf_d / "old.yaml"
    scope = place.registry.host
    path.write_text(
        json.dumps({"docker": {scope: {"sigstore": f"file://{tmp_path / 'old'}", "sigstore-staging": "file:///x"}}})
    )
    try:
        assert place.accepts(policy(by(keys)), name, tmp_path)
    finally:
        path.unlink()
