"""registry.attached: signatures in the registry, whatever it serves under their name."""

import json

import pytest
from support.asking import ask
from support.bad_registry import run_bad_registry, status
from support.images import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, digest_of, make_image, make_index

from criollo.errors import Damaged, Invalid, NotFound, Unavailable
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.oci.signature import MAX_BYTES, MAX_SIGNATURES, SIGSTORE_TYPE, SignatureKind, parse_blob, sigstore
from criollo.registry.attached import attach as add
from criollo.registry.attached import fetch
from criollo.registry.connections import Limits
from criollo.registry.hosts import Hosts
from criollo.registry.registries_conf import Rule

DIGEST = Digest.of(b"manifest")
QUICK = Limits(rounds=1, backoff_s=0.01, longest_wait_s=1)


@pytest.fixture
def registry():
    with run_bad_registry() as running:
        yield running


def found(registry):
    rule = Rule(prefix=registry.host, location=registry.host, insecure=True)
    ref = Reference.parse(f"{registry.host}/team/app:v1")
    return ask(Hosts([rule]), lambda client: fetch(client, ref, DIGEST), limits=QUICK)


def test_nothing_attached(registry):
    assert found(registry) == []


def test_a_registry_that_fails(registry):
    registry.break_at("/manifests/", status(503))
    with pytest.raises(Unavailable):
        found(registry)


def attach(registry, layers, *, media_type=OCI_MANIFEST, config=OCI_CONFIG, **more):
    described = {"mediaType": config, "digest": digest_of(b"{}"), "size": 2}
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": described, "layers": layers, **more}
    tag = f"{DIGEST.replace(':', '-')}.sig"
    registry.add_manifest("team/app", tag, media_type, json.dumps(manifest).encode())


def layer(registry, content, **change):
    digest = registry.add_blob("team/app", content)
    return {"mediaType": SIGSTORE_TYPE, "digest": digest, "size": len(content), "annotations": {"a": "b"}, **change}


@pytest.mark.parametrize("config", [OCI_CONFIG, "application/vnd.example+json"])
def test_layers_are_signatures(registry, config):
    attach(
        registry,
        [layer(registry, b"one"), layer(registry, b"x", mediaType="text/plain"), layer(registry, b"two")],
        config=config,
    )
    signatures = found(registry)
    assert [each.payload for each in signatures] == [b"one", b"two"]
    assert {each.kind for each in signatures} == {SignatureKind.SIGSTORE}
    assert signatures[0].annotations == {"a": "b"}


def test_a_payload_that_is_not_what_its_digest_says(registry):
    attach(registry, [layer(registry, b"one", digest=digest_of(b"two"))])
    registry.add_blob("team/app", b"two")
    registry._contents[f"/v2/team/app/blobs/{digest_of(b'two')}"] = ("", b"one")
    with pytest.raises(Damaged):
        found(registry)


def test_a_payload_that_is_gone(registry):
    attach(registry, [layer(registry, b"one", digest=digest_of(b"gone"))])
    with pytest.raises(NotFound):
        found(registry)


def test_one_is_added_at_each_signing_and_all_count(registry):
    """With one payload, which is asked for once: only the annotations differ."""
    attach(registry, [layer(registry, b"x", annotations={"at": str(at)}) for at in range(MAX_SIGNATURES)])
    signatures = found(registry)
    assert [each.annotations["at"] for each in signatures] == [str(at) for at in range(MAX_SIGNATURES)]
    assert {each.payload for each in signatures} == {b"x"}
    assert len(registry.asked("/blobs/")) == 1


def test_there_is_an_end_to_it(registry):
    attach(registry, [layer(registry, b"x")] * (MAX_SIGNATURES + 1))
    with pytest.raises(Invalid, match=rf"manifest\.layers.*{MAX_SIGNATURES}"):
        found(registry)


@pytest.mark.parametrize("sizes", [[MAX_BYTES + 1], [MAX_BYTES, 1], [MAX_BYTES // 4] * 5])
def test_payloads_have_a_limit_together(registry, sizes):
    attach(registry, [layer(registry, b"x", size=size) for size in sizes])
    with pytest.raises(Invalid, match=f"{sum(sizes)} bytes of payloads.*at most {MAX_BYTES}"):
        found(registry)
    assert registry.asked("/blobs/") == []


def test_a_payload_of_the_whole_limit_is_kept_and_read_again(registry):
    attach(registry, [layer(registry, bytes(MAX_BYTES))])
    (signature,) = found(registry)
    assert parse_blob(signature.to_blob()) == signature


def test_no_more_are_added_than_can_be_read(registry):
    attach(registry, [layer(registry, b"x")] * MAX_SIGNATURES)
    rule = Rule(prefix=registry.host, location=registry.host, insecure=True)
    ref = Reference.parse(f"{registry.host}/team/app:v1")
    further = sigstore(b"y", media_type=SIGSTORE_TYPE, annotations={})
    with pytest.raises(Invalid, match="remove old ones"):
        ask(Hosts([rule]), lambda client: add(client, ref, DIGEST, further), limits=QUICK)


def test_an_index_is_no_signature(registry):
    index = make_index([make_image([])])
    registry.add_manifest("team/app", f"{DIGEST.replace(':', '-')}.sig", OCI_INDEX, index.manifest)
    with pytest.raises(Invalid, match="an index"):
        found(registry)
