"""Keys of the configuration that the real daemon obeys."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon, running_daemon, wait_for
from support.image_node import pull, remove
from support.images import busybox_layer, make_image, push
from support.otlp import running_collector
from support.registry import PASSWORD, USERNAME, Registry, run_registry

from criollo.daemon.selfsigned import make

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def behind_password() -> Iterator[Registry]:
    with run_registry("basic") as running:
        for repository in ("team/pause", "team/app"):
            push(running, repository, "v1", make_image([busybox_layer()]))
        yield running


def test_answer_over_grpc_max_send_msg_size_is_refused_by_name(tmp_path: Path) -> None:
    with running_daemon(tmp_path / "node", settings={"crio.api.grpc_max_send_msg_size": 300}) as running:
        assert running.cri.call("Version").runtime_name
        with pytest.raises(grpc.RpcError) as refused:
            running.cri.call("Status", pb.StatusRequest(verbose=True))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "grpc_max_send_msg_size" in str(refused.value.details())


def test_pause_image_auth_file_opens_the_registry_for_the_pause_image_alone(tmp_path: Path, behind_password: Registry) -> None:
    pause, app = (behind_password.reference(f"team/{name}", "v1") for name in ("pause", "app"))
    auth = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"auths": {behind_password.host: {"auth": auth}}}))
    settings = {"crio.image.pause_image": pause, "crio.image.pause_image_auth_file": str(file)}
    with running_daemon(tmp_path / "node", registries=behind_password.registries_conf(), settings=settings) as running:
        assert pull(running, pause)
        with pytest.raises(grpc.RpcError):
            pull(running, app)
        remove(running, pause)


def test_traces_go_to_a_collector_with_tls_that_the_node_trusts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make(["localhost", "127.0.0.1"])
    (tmp_path / "ca.pem").write_bytes(pair[0])
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    def called(running: Daemon) -> None:
        running.cri.call("Version")

    with running_collector(tls=pair) as collector:
        settings = {
            "crio.tracing.enable_tracing": True,
            "crio.tracing.tracing_endpoint": f"https://localhost:{collector.port}",
            "crio.tracing.tracing_sampling_rate_per_million": 1_000_000,
        }
        with running_daemon(tmp_path / "node", settings=settings) as running:
            called(running)
            wait_for(lambda: collector.named("/runtime.v1.RuntimeService/Version"))
