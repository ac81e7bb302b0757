"""registry.attached: signatures in the registry, whatever it serves under their name."""

import asyncio
import json

import pytest
from support.bad_registry import run_bad_registry, status
from support.images import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, digest_of, make_image, make_index

from criollo.aio import threads
from criollo.errors import Damaged, Invalid, NotFound, Unavailable
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.oci.signature import MAX_BYTES, SIGSTORE_TYPE, SignatureKind
from criollo.registry.attached import fetch
from criollo.registry.client import Registry
from criollo.registry.connections import Limits
from criollo.registry.hosts import Hosts
from criollo.registry.lookaside import MAX_SIGNATURES
from criollo.registry.registries_conf import Rule

DIGEST = Digest.of(b"manifest")
QUICK = Limits(connect_s=5, idle_s=1, document_s=5, rounds=1, backoff_s=0.01, longest_wait_s=1)


@pytest.fixture
def registry():
    with run_bad_registry() as running:
        yield running


def found(registry):
    async def ask():
        rule = Rule(prefix=registry.host, location=registry.host, insecure=True)
        client = Registry(Hosts([rule]), user_agent="t", limits=QUICK, environ={})
        try:
            return await fetch(client, Reference.parse(f"{registry.host}/team/app:v1"), DIGEST)
        finally:
            await client.close()

    try:
        return asyncio.run(ask())
    finally:
        threads.close()


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


def test_too_many_or_too_long(registry):
    attach(registry, [layer(registry, b"x")] * (MAX_SIGNATURES + 1))
    with pytest.raises(Invalid, match="too many or too long"):
        found(registry)
    attach(registry, [layer(registry, b"x", size=MAX_BYTES + 1)])
    with pytest.raises(Invalid, match="too many or too long"):
        found(registry)
    attach(registry, [layer(registry, b"x", size=MAX_BYTES)] * 5)
    with pytest.raises(Invalid, match="too many or too long"):
        found(registry)


def test_an_index_is_no_signature(registry):
    index = make_index([make_image([])])
    registry.add_manifest("team/app", f"{DIGEST.replace(':', '-')}.sig", OCI_INDEX, index.manifest)
    with pytest.raises(Invalid, match="an index"):
        found(registry)
