"""images.signatures: what is looked for at a pull, under which names, and what is kept of it."""

import asyncio
import base64
import json

import pytest
from support.image_store import image_store
from support.signing import SIGSTORE, SIGSTORE_LAYER, SigstoreKey, digest_of, payload, put_signature

from criollo.errors import Denied
from criollo.images.signatures import Asked, prove
from criollo.oci.reference import Reference
from criollo.oci.signature import sigstore
from criollo.trust.judge import Judge
from criollo.trust.policies import Policies

KEY = SigstoreKey.ecdsa()
RAW = b"manifest"
DIGEST = digest_of(RAW)


def blob(name):
    text = payload(DIGEST, name, SIGSTORE)
    return sigstore(text, media_type=SIGSTORE_LAYER, annotations=dict(KEY.sign(text).annotations)).to_blob()


@pytest.fixture
def store(tmp_path):
    """Images whose registries.d knows two lookasides; `rule` writes policies."""
    said = {"a.b": {"lookaside": f"file://{tmp_path / 'own'}"}, "mirror.b": {"lookaside": f"file://{tmp_path / 'mirrored'}"}}
    (tmp_path / "registries.d").mkdir()
    (tmp_path / "registries.d/a.yaml").write_text(json.dumps({"docker": said}))
    (tmp_path / "spaces").mkdir()
    with image_store(tmp_path) as images:
        images.judge = Judge(Policies(tmp_path / "policy.json", directory=tmp_path / "spaces"), scratch=tmp_path / "scratch")
        images.signatures_conf = tmp_path / "registries.d"
        yield images


def rule(tmp_path, kind, namespace=""):
    wanted = {"type": "sigstoreSigned", "keyData": base64.b64encode(KEY.pem).decode()} if kind == "signed" else {"type": kind}
    path = tmp_path / f"spaces/{namespace}.json" if namespace else tmp_path / "policy.json"
    path.write_text(json.dumps({"default": [wanted]}))


def proof(images, name, *, source="", namespace=""):
    reference = Reference.parse(name)
    return asyncio.run(prove(images, Asked(reference, RAW, source or reference.name, None), namespace=namespace))


def test_what_the_policy_wants_is_found_and_kept(store, tmp_path):
    rule(tmp_path, "signed")
    put_signature(tmp_path / "own", "c", DIGEST, blob("a.b/c:v1"))
    assert proof(store, "a.b/c:v1") == (DIGEST, (blob_of(tmp_path / "own"),))


def blob_of(lookaside):
    return (lookaside / f"c@{DIGEST.replace(':', '=')}/signature-1").read_bytes()


def test_a_mirrors_signatures_count_for_the_name_that_was_asked_for(store, tmp_path):
    rule(tmp_path, "signed")
    put_signature(tmp_path / "mirrored", "c", DIGEST, blob("a.b/c:v1"))
    assert len(proof(store, "a.b/c:v1", source="mirror.b/c")[1]) == 1
    with pytest.raises(Denied):
        proof(store, "a.b/c:v1")
    with pytest.raises(Denied, match="does not take"):
        proof(store, "a.b/c:v2", source="mirror.b/c")


def test_without_need_nothing_is_looked_for(store, tmp_path):
    rule(tmp_path, "insecureAcceptAnything")
    (tmp_path / "registries.d/wrong.yaml").write_text("[")
    assert proof(store, "a.b/c:v1") == (DIGEST, ())


def test_what_another_namespace_wants_is_taken_along_if_it_can_be_had(store, tmp_path):
    rule(tmp_path, "insecureAcceptAnything")
    rule(tmp_path, "signed", "strict")
    put_signature(tmp_path / "own", "c", DIGEST, blob("a.b/c:v1"))
    assert len(proof(store, "a.b/c:v1")[1]) == 1
    (tmp_path / "registries.d/wrong.yaml").write_text("[")
    assert proof(store, "a.b/c:v1") == (DIGEST, ())
    with pytest.raises(Denied, match=r"wrong\.yaml"):
        proof(store, "a.b/c:v1", namespace="strict")


def test_a_source_that_is_no_name_is_left_out(store, tmp_path):
    rule(tmp_path, "signed")
    put_signature(tmp_path / "own", "c", DIGEST, blob("a.b/c:v1"))
    assert proof(store, "a.b/c:v1", source="mirror.b/UPPER//case")[1]
