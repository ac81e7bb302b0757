"""Registries as a daemon follows them: changed files, credentials by namespace, storms of pulls over the socket."""

import base64
import hashlib
import json

import grpc
import pytest
from support.bad_registry import run_bad_registry
from support.cri import pb
from support.daemon import running_daemon, wait_for
from support.image_node import pull, refused, remove, status
from support.images import file, make_image, push
from support.registry import PASSWORD, USERNAME, run_registry

pytestmark = pytest.mark.node

IMAGE = make_image([[file("a", "b")]])
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def guarded():
    with run_registry("basic") as registry:
        push(registry, "team/app", "v1", IMAGE)
        yield registry


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, guarded):
    directory = tmp_path_factory.mktemp("registries")
    settings = {"crio.image.auto_reload_registries": True, "crio.image.namespaced_auth_dir": str(directory / "auth")}
    with running_daemon(directory, settings=settings, registries=guarded.registries_conf()) as running:
        yield running


def write(daemon, text):
    directory = daemon.place / "registries.conf.d"
    directory.mkdir(exist_ok=True)
    (directory / "50-test.conf").write_text(text)


def test_a_changed_file_counts_and_a_wrong_one_does_not(daemon):
    with run_bad_registry() as other:
        other.add("team/app", "v1", IMAGE)
        text = f"{other.host}/team/app:v1"
        assert "does not speak TLS" in refused(daemon, text, Code.UNKNOWN) + refused(daemon, text, Code.UNKNOWN)
        write(daemon, other.registries_conf())
        wait_for(lambda: pulls(daemon, text))
        write(daemon, "[[registry]]\nlocation = 7")
        wait_for(lambda: "the old rules stay" in daemon.log())
        assert pulls(daemon, text)
        remove(daemon, text)


def pulls(daemon, text):
    try:
        return pull(daemon, text)
    except grpc.RpcError:
        return ""


def test_credentials_of_a_namespace_are_for_its_pulls(daemon, guarded):
    text = guarded.reference("team/app", "v1")
    digest = hashlib.sha256(text.rpartition(":")[0].encode()).hexdigest()
    auth = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    path = daemon.place / "auth" / f"shop-{digest}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"auths": {guarded.host: {"auth": auth}}}))

    def request(namespace):
        pod = pb.PodSandboxConfig(metadata=pb.PodSandboxMetadata(name="a", namespace=namespace, uid="u"))
        return pb.PullImageRequest(image=pb.ImageSpec(image=text), sandbox_config=pod)

    with pytest.raises(grpc.RpcError):
        daemon.cri.call("PullImage", request("other"))
    assert path.exists()
    assert daemon.cri.call("PullImage", request("shop")).image_ref == IMAGE.id
    assert not path.exists()
    assert status(daemon, text).id == IMAGE.id
    assert PASSWORD not in daemon.log()
    assert auth not in daemon.log()
    remove(daemon, text)
