"""images.remote: an image at a registry, looked at without pulling it."""

import json
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from support.asking import ask
from support.bad_registry import BadRegistry, flip, run_bad_registry
from support.images import file, make_image, make_index

from criollo.errors import Damaged, NotFound
from criollo.images.remote import describe, fetch_config, look
from criollo.oci.platform import Platform
from criollo.oci.reference import Reference
from criollo.registry.client import Registry
from criollo.registry.connections import Limits
from criollo.registry.hosts import Hosts
from criollo.registry.registries_conf import Rule

T = TypeVar("T")

OURS = make_image([[file("a")], [file("b")]], config={"Env": ["A=b"], "Labels": {"l": "m"}})
ARM = make_image([[file("arm")]], platform={"os": "linux", "architecture": "arm64"})


def using(bad: BadRegistry, work: Callable[[Registry, Reference], Awaitable[T]]) -> T:
    hosts = Hosts([Rule(prefix=bad.host, location=bad.host, insecure=True)])
    ref = Reference.parse(bad.reference("team/app", "v1"))
    return ask(hosts, lambda client: work(client, ref), limits=Limits(rounds=1, keep_s=0.01))


def test_an_index_leads_to_the_image_of_the_platform() -> None:
    with run_bad_registry() as bad:
        index = make_index([ARM, OURS])
        bad.add("team/app", "v1", index)
        ours = using(bad, lambda client, ref: look(client, ref, platform=Platform(os="linux", architecture="amd64")))
        theirs = using(bad, lambda client, ref: look(client, ref, platform=Platform(os="linux", architecture="arm64")))
        with pytest.raises(NotFound, match="s390x"):
            using(bad, lambda client, ref: look(client, ref, platform=Platform(os="linux", architecture="s390x")))
    assert ours.raw == theirs.raw == index.manifest
    assert [each.manifest.config.digest.hex for each in (ours, theirs)] == [OURS.id, ARM.id]


def test_what_is_told_has_skopeos_keys() -> None:
    with run_bad_registry() as bad:
        bad.add("team/app", "v1", OURS)

        async def told(client: Registry, ref: Reference) -> dict[str, object]:
            return await describe(client, await look(client, ref), tags=False)

        found = using(bad, told)
    assert (found["Name"], found["Digest"], found["RepoTags"]) == (f"{bad.host}/team/app", OURS.digest, [])
    assert (found["Env"], found["Labels"], found["Architecture"]) == (["A=b"], {"l": "m"}, "amd64")
    assert found["Layers"] == [layer.digest for layer in OURS.layers]
    assert json.loads(json.dumps(found["LayersData"]))[0]["Size"] == len(OURS.layers[0].blob)


def test_a_config_that_is_not_what_its_digest_says_is_refused() -> None:
    with run_bad_registry() as bad:
        bad.add("team/app", "v1", OURS)
        bad.break_at("/blobs/", flip())

        async def config(client: Registry, ref: Reference) -> bytes:
            return await fetch_config(client, await look(client, ref))

        with pytest.raises(Damaged):
            using(bad, config)
