"""Trust as kubelet meets it: pulls refused by word and reason, containers judged again, policies by namespace."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from support.cri import pb
from support.daemon import running_daemon
from support.image_node import no_images_left, pull, refused
from support.images import busybox_image, push, write_oci_layout
from support.registry import run_registry
from support.signing import SIGSTORE, SigstoreKey, attach, payload, put_signature, write_json

pytestmark = pytest.mark.node

Code = grpc.StatusCode
ACCEPT, REJECT = {"type": "insecureAcceptAnything"}, {"type": "reject"}
SEAL = SigstoreKey.ecdsa()


@pytest.fixture(scope="module")
def upstream():
    with run_registry() as registry:
        yield registry


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, upstream):
    directory = Path(tmp_path_factory.mktemp("trust"))
    home = Path(tmp_path_factory.mktemp("home"))
    places = home / ".config/containers/registries.d"
    places.mkdir(parents=True)
    said = {"lookaside": f"file://{home / 'lookaside'}", "use-sigstore-attachments": True}
    (places / "all.yaml").write_text(json.dumps({"default-docker": said}))
    settings = {"crio.image.signature_policy_dir": str(directory / "policies")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        with running_daemon(directory, settings=settings, registries=upstream.registries_conf()) as running:
            (directory / "policies").mkdir()
            running.lookaside = home / "lookaside"
            yield running


@pytest.fixture(autouse=True)
def clean(daemon):
    with no_images_left(daemon):
        rule(daemon, ACCEPT)
        yield
        for path in (daemon.place / "policies").iterdir():
            path.unlink()
    assert os.listdir(daemon.runroot / "trust") == [] if (daemon.runroot / "trust").exists() else True


def rule(daemon, *requirements, namespace=""):
    path = daemon.place / "policies" / f"{namespace}.json" if namespace else daemon.place / "policy.json"
    write_json(path, {"default": list(requirements)})


def by(keys):
    return {"type": "signedBy", "keyType": "GPGKeys", "keyData": base64.b64encode(keys.ring.export(keys.good)).decode()}


def sealed(key=SEAL):
    return {"type": "sigstoreSigned", "keyData": base64.b64encode(key.pem).decode()}


def image_of(upstream, repository):
    image = busybox_image(config={"Labels": {"name": repository}})
    return push(upstream, repository, "v1", image), upstream.reference(repository, "v1"), image.id


def create(daemon, name, namespace="test"):
    config = daemon.pod_config()
    config.metadata.namespace = namespace
    pod = daemon.run_pod(config)
    wanted = daemon.container_config(name, "sleep", "60")
    wanted.image.user_specified_image = name
    try:
        return daemon.create(pod, wanted)
    finally:
        daemon.remove_pod(pod)


def refusal(daemon, name, namespace="test"):
    with pytest.raises(grpc.RpcError) as told:
        create(daemon, name, namespace)
    assert told.value.code() is Code.PERMISSION_DENIED
    return str(told.value.details())


def test_an_unsigned_image_is_refused_with_the_word_that_kubelet_knows(daemon, upstream, keys):
    _, name, _ = image_of(upstream, "team/unsigned")
    rule(daemon, by(keys))
    said = refused(daemon, name, Code.UNKNOWN)
    assert said.startswith(f"SignatureValidationFailed: cannot use image {name}: signature policy {daemon.place}/policy.json")
    assert "scope 'default', demands signedBy, and there is no simple signing signature" in said


def test_a_signed_image_is_pulled_and_runs(daemon, upstream, keys):
    digest, name, _ = image_of(upstream, "team/signed")
    rule(daemon, by(keys), sealed())
    put_signature(daemon.lookaside, "team/signed", digest, keys.sign(payload(digest, name), keys.good))
    attach(upstream, "team/signed", digest, [SEAL.sign(payload(digest, name, SIGSTORE))])
    pull(daemon, name)
    create(daemon, name)
    assert re.search(rf"Using pull policy path\s.*{re.escape(str(daemon.place))}/policy\.json", daemon.log())


def test_what_was_pulled_stays_proven_after_a_restart_and_without_the_registry(daemon, upstream, keys):
    digest, name, _ = image_of(upstream, "team/kept")
    rule(daemon, by(keys))
    path = put_signature(daemon.lookaside, "team/kept", digest, keys.sign(payload(digest, name), keys.good))
    pull(daemon, name)
    path.unlink()
    daemon.restart()
    create(daemon, name)


def test_a_policy_that_was_tightened_counts_at_the_next_create(daemon, upstream, keys):
    _, name, image_id = image_of(upstream, "team/loose")
    pull(daemon, name)
    create(daemon, name)
    rule(daemon, by(keys))
    assert "demands signedBy" in refusal(daemon, name)
    assert "demands signedBy" in refusal(daemon, image_id)
    rule(daemon, REJECT)
    assert "rejects it" in refusal(daemon, name)
    rule(daemon, ACCEPT)
    create(daemon, name)


def test_another_key_in_the_policy_counts_at_the_next_create(daemon, upstream, keys):
    digest, name, _ = image_of(upstream, "team/rekeyed")
    key = daemon.place / "key.pem"
    key.write_bytes(SEAL.pem)
    rule(daemon, {"type": "sigstoreSigned", "keyPath": str(key)})
    attach(upstream, "team/rekeyed", digest, [SEAL.sign(payload(digest, name, SIGSTORE))])
    pull(daemon, name)
    create(daemon, name)
    key.write_bytes(SigstoreKey.ecdsa().pem)
    assert "by no key that the policy has" in refusal(daemon, name)


def test_a_namespace_has_its_own_policy_at_pull_and_create(daemon, upstream):
    _, name, _ = image_of(upstream, "team/spaces")
    rule(daemon, REJECT, namespace="closed")
    pod = pb.PodSandboxConfig(metadata=pb.PodSandboxMetadata(name="a", namespace="closed", uid="u"))
    with pytest.raises(grpc.RpcError, match="SignatureValidationFailed"):
        daemon.cri.call("PullImage", pb.PullImageRequest(image=pb.ImageSpec(image=name), sandbox_config=pod))
    pull(daemon, name)
    create(daemon, name)
    assert "closed.json" in refusal(daemon, name, "closed")
    (daemon.place / "policies/closed.json").unlink()
    create(daemon, name, "closed")


def test_signatures_that_another_namespace_wants_are_taken_along(daemon, upstream):
    digest, name, _ = image_of(upstream, "team/shared")
    attach(upstream, "team/shared", digest, [SEAL.sign(payload(digest, name, SIGSTORE))])
    rule(daemon, sealed(), namespace="strict")
    pull(daemon, name)
    create(daemon, name, "strict")


def test_a_policy_that_cannot_be_read_denies(daemon, upstream):
    _, name, _ = image_of(upstream, "team/broken")
    pull(daemon, name)
    (daemon.place / "policies/odd.json").write_text('{"default":[{"type":"reject","x":1}]}')
    assert "odd.json" in refusal(daemon, name, "odd")


def test_an_image_volume_is_judged_too(daemon, upstream):
    _, name, _ = image_of(upstream, "team/volume")
    _, denied, _ = image_of(upstream, "team/denied")
    for each in (name, denied):
        pull(daemon, each)
    repository = denied.rpartition(":")[0]
    write_json(daemon.place / "policy.json", {"default": [ACCEPT], "transports": {"docker": {repository: [REJECT]}}})
    pod = daemon.run_pod()
    wanted = daemon.container_config(name, "sleep", "60")
    mount = wanted.mounts.add(container_path="/data", readonly=True)
    mount.image.image = denied
    with pytest.raises(grpc.RpcError, match="rejects it"):
        daemon.create(pod, wanted)
    daemon.remove_pod(pod)


def test_an_archive_is_loaded_only_where_the_policy_wants_nothing_of_it(daemon, tmp_path):
    image = busybox_image(config={"Labels": {"name": "loaded"}})
    write_oci_layout(tmp_path / "layout", {"r.invalid/loaded:v1": image})

    def load():
        run = "import sys; from criollo.kpod.main import run; sys.exit(run())"
        words = ["-c", "", "-d", "", "--listen", daemon.socket, "load", "-i", str(tmp_path / "layout")]
        return subprocess.run([sys.executable, "-c", run, *words], capture_output=True, text=True, timeout=60)

    rule(daemon, REJECT)
    refused_load = load()
    assert refused_load.returncode == 1
    assert "demands reject of oci images" in refused_load.stderr
    assert os.listdir(daemon.root / "staging") == []
    there = {"oci": {str(tmp_path): [ACCEPT]}}
    write_json(daemon.place / "policy.json", {"default": [REJECT], "transports": there})
    assert "cannot use image r.invalid/loaded:v1" in load().stderr  # it may come from there, but not have this name
    write_json(daemon.place / "policy.json", {"default": [REJECT], "transports": {**there, "docker": {"r.invalid": [ACCEPT]}}})
    assert load().returncode == 0
    rule(daemon, ACCEPT)
