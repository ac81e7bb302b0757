"""Signatures that the registry itself keeps: a server in front of a real registry announces them, and has them or not."""

import base64
import dataclasses
import json
import urllib.error
import urllib.request

import pytest
from support.serving import Quiet, serving
from support.signing import payload, policy, put_signature, write_json
from support.trusting import REPOSITORY, Place

from criollo.errors import Denied, Invalid, Unavailable

pytestmark = pytest.mark.node


class Front:
    """Passes questions on to a registry; `lists` are what it keeps by digest, `announced` its header."""

    def __init__(self, behind):
        self.behind, self.announced, self.lists, self.status, self.asked = behind, "1", {}, 200, []

    def handler(self):
        front = self

        class Handler(Quiet):
            def do_GET(self):
                front.asked.append(self.path)
                if self.path.startswith("/extensions/v2/"):
                    raw = json.dumps({"signatures": front.lists.get(self.path.rpartition("/")[2], [])}).encode()
                    return self.answer(front.status, raw, {"Content-Type": "application/json"})
                more = {"X-Registry-Supports-Signatures": front.announced} if front.announced and self.path == "/v2/" else {}
                request = urllib.request.Request(
                    front.behind.url + self.path, headers={"Accept": self.headers["Accept"] or "*/*"}
                )
                try:
                    with urllib.request.urlopen(request, timeout=60) as answer:
                        self.answer(answer.status, answer.read(), {**answer.headers, **more})
                except urllib.error.HTTPError as error:
                    self.answer(error.code, error.read(), more)

        return Handler

    def keep(self, digest, *blobs, kind="atomic", version=2):
        self.lists[digest] = [
            {"schemaVersion": version, "name": f"{digest}@{at}", "type": kind, "content": base64.b64encode(blob).decode()}
            for at, blob in enumerate(blobs)
        ]

    def asked_for_signatures(self):
        return [path for path in self.asked if path.startswith("/extensions/")]


@pytest.fixture
def front(place):
    server = Front(place.registry)
    with serving(server.handler()) as port:
        server.host = f"127.0.0.1:{port}"
        yield server


@pytest.fixture
def fronted(front, tmp_path):
    """The registry as it is seen through the front, with no lookaside in any file."""
    root = tmp_path / "fronted"
    root.mkdir()
    seen = Place(dataclasses.replace(front.behind, host=front.host), root)
    (seen.conf_d / "default.yaml").write_text("{}")
    return seen


@pytest.fixture
def verdict(place, fronted, front, keys, tmp_path):
    def ask(digest, name):
        key = base64.b64encode(keys.ring.export(keys.good)).decode()
        rules = write_json(tmp_path / "policy.json", policy({"type": "signedBy", "keyType": "GPGKeys", "keyData": key}))
        return fronted.verdict(rules, name, tmp_path / f"store{len(list(tmp_path.iterdir()))}")

    return ask


@pytest.fixture
def image(place, front):
    digest, _ = place.image()
    return digest, f"{front.host}/{REPOSITORY}:v1"


def test_a_signature_that_the_registry_keeps_counts(verdict, front, keys, image):
    digest, name = image
    front.keep(digest, keys.sign(payload(digest, name), keys.other), keys.sign(payload(digest, name), keys.good))
    assert verdict(*image) is None
    assert front.asked_for_signatures() == [f"/extensions/v2/{REPOSITORY}/signatures/{digest}"]


def test_a_signature_of_another_image_or_kind_does_not(verdict, front, keys, image):
    digest, name = image
    good = keys.sign(payload(digest, name), keys.good)
    front.keep(digest, keys.sign(payload("sha256:" + "a" * 64, name), keys.good))
    assert isinstance(verdict(*image), Denied)
    for more in ({"kind": "other"}, {"version": 1}):
        front.keep(digest, good, **more)
        assert isinstance(verdict(*image), Denied)


def test_who_does_not_announce_signatures_is_not_asked_for_them(verdict, front, keys, image):
    digest, name = image
    front.announced = ""
    front.keep(digest, keys.sign(payload(digest, name), keys.good))
    assert isinstance(verdict(*image), Denied)
    assert front.asked_for_signatures() == []


def test_a_lookaside_that_a_file_names_goes_before(verdict, fronted, front, keys, image):
    digest, name = image
    front.keep(digest, keys.sign(payload(digest, name), keys.other))
    fronted.write_places(lookaside=f"file://{fronted.lookaside}", attachments=False)
    put_signature(fronted.lookaside, REPOSITORY, digest, keys.sign(payload(digest, name), keys.good))
    assert verdict(*image) is None
    assert front.asked_for_signatures() == []


def test_a_registry_that_announces_and_does_not_give_fails_the_pull(verdict, front, image):
    front.status = 503
    assert isinstance(verdict(*image), Unavailable)


def test_too_many_signatures_are_refused(verdict, front, image):
    front.keep(image[0], *[b"x"] * 129)
    assert isinstance(verdict(*image), Invalid)
