"""Metrics of the real daemon: what Prometheus reads, over a port, TLS and sockets."""

import http.client
import json
import re
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cri import pb
from support.daemon import CRIO, Daemon, running_daemon, wait_for
from support.registry import Registry

DASHBOARD = Path(__file__).parents[3] / "contrib" / "grafana-dashboard.json"
PREFIX = "container_runtime_crio_"
ENDINGS = {"histogram": ("", "_sum", "_count", "_bucket"), "summary": ("", "_sum", "_count")}


@pytest.fixture(scope="module")
def daemon(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = Path(tmp_path_factory.mktemp("node"))
    settings = {
        "crio.metrics.enable_metrics": True,
        "crio.metrics.metrics_host": "localhost",
        "crio.metrics.metrics_port": 0,
        "crio.metrics.metrics_socket": str(place / "metrics.sock"),
    }
    with running_daemon(place, registries=registry.registries_conf(), settings=settings) as running:
        running.pull(registry.reference("busybox"))
        yield running


def url(daemon: Daemon) -> str:
    return str(re.findall(r'"serving metrics" url=(\S+)', daemon.log())[-1])


def page(daemon: Daemon) -> str:
    with urllib.request.urlopen(url(daemon), timeout=30) as answer:
        return str(answer.read().decode())


def value(text: str, name: str, labels: str = "") -> float:
    """Of one sample; 0 where there is none."""
    start = f"{PREFIX}{name}{labels} "
    return next((float(line[len(start) :]) for line in text.splitlines() if line.startswith(start)), 0.0)


def by_socket(path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_calls_are_counted_with_time_and_errors(daemon: Daemon) -> None:
    before = page(daemon)
    daemon.cri.call("ListPodSandbox", pb.ListPodSandboxRequest())
    with pytest.raises(Exception, match="not found"):
        daemon.cri.call("PodSandboxStatus", pb.PodSandboxStatusRequest(pod_sandbox_id="nobody"))
    after = page(daemon)
    for name in ("ListPodSandbox", "PodSandboxStatus"):
        labels = f'{{operation="{name}"}}'
        grown = value(after, "operations_total", labels) - value(before, "operations_total", labels)
        assert grown == 1, name
        assert value(after, "operations_latency_seconds_total_count", labels) == value(after, "operations_total", labels)
    assert value(after, "operations_errors_total", '{operation="PodSandboxStatus"}') == 1
    assert value(after, "operations_latency_seconds", '{operation="ListPodSandbox"}') > 0


def test_network_of_a_pod_is_timed(daemon: Daemon) -> None:
    daemon.remove_pod(daemon.run_pod())
    text = page(daemon)
    overall = value(text, "operations_latency_seconds", '{operation="network_setup_overall"}')
    plugins = value(text, "operations_latency_seconds", '{operation="network_setup_pod"}')
    assert overall >= plugins > 0


def test_pulls_are_counted(daemon: Daemon, registry: Registry) -> None:
    text = page(daemon)
    assert value(text, "image_pulls_success_total") == 1
    assert value(text, "image_pulls_layer_size_count") == 1
    assert value(text, "image_pulls_layer_size_sum") > 1000
    with pytest.raises(Exception, match=r"not found|unknown"):
        daemon.pull(registry.reference("nothing"))
    daemon.pull(registry.reference("busybox"))
    text = page(daemon)
    assert value(text, "image_pulls_failure_total", '{error="MANIFEST_UNKNOWN"}') == 1
    assert value(text, "image_pulls_success_total") == 2
    assert f"{PREFIX}image_layer_reuse_total{{name=" in text


def test_killed_for_memory_is_counted_until_it_is_removed(daemon: Daemon, image: str) -> None:
    config = daemon.container_config(image, "sh", "-c", "tail /dev/zero")
    config.linux.resources.memory_limit_in_bytes = 8 << 20
    pod = daemon.run_pod()
    container = daemon.run_container(pod, config)
    wait_for(lambda: value(page(daemon), "containers_oom_total") == 1)
    named = [line for line in page(daemon).splitlines() if line.startswith(f"{PREFIX}containers_oom_count_total{{")]
    assert len(named) == 1
    assert named[0].endswith(" 1")
    daemon.remove_container(container)
    assert f"{PREFIX}containers_oom_count_total{{" not in page(daemon)
    daemon.remove_pod(pod)


def test_child_that_is_killed_for_memory_is_seen_while_its_container_lives_and_ends_well(daemon: Daemon, image: str) -> None:
    counted = value(page(daemon), "containers_oom_total")
    config = daemon.container_config(image, "sh", "-c", "tail /dev/zero; until [ -e /go ]; do sleep 0.1; done")
    config.linux.resources.memory_limit_in_bytes = 16 << 20
    pod = daemon.run_pod()
    container = daemon.run_container(pod, config)
    wait_for(lambda: value(page(daemon), "containers_oom_total") == counted + 1)
    assert daemon.status(container).state == pb.CONTAINER_RUNNING
    assert "memory of a container is used up" in daemon.log()
    crio = [str(CRIO), "-c", str(daemon.place / "crio.conf"), "-d", "", "explain", container]
    assert "OOM" in subprocess.run(crio, check=True, capture_output=True, text=True, timeout=60).stdout
    daemon.exec(container, "touch", "/go")
    ended = daemon.wait_state(container, pb.CONTAINER_EXITED)
    assert (ended.exit_code, ended.reason) == (0, "Completed")
    assert value(page(daemon), "containers_oom_total") == counted + 1
    daemon.remove_container(container)
    daemon.remove_pod(pod)


def test_same_page_by_both_sockets(daemon: Daemon) -> None:
    for path in (daemon.place / "metrics.sock", daemon.socket):
        status, body = by_socket(str(path))
        assert status == 200
        assert f'{PREFIX}default_runtime{{runtime="crun"}} 1'.encode() in body
        assert b"process_resident_memory_bytes" in body


def test_whatever_the_dashboard_asks_for_is_served(daemon: Daemon) -> None:
    asked = set(re.findall(rf"\b((?:{PREFIX}|process_)[a-z_]+)", "\n".join(_queries(json.loads(DASHBOARD.read_text())))))
    families = re.findall(r"^# TYPE (\S+) (\S+)$", page(daemon), re.MULTILINE)
    served = {name + ending for name, kind in families for ending in ENDINGS.get(kind, ("",))}
    assert len(asked) > 15
    assert asked <= served, sorted(asked - served)


def _queries(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["expr"]] if isinstance(node.get("expr"), str) else []
        return own + [query for below in node.values() for query in _queries(below)]
    return [query for below in node for query in _queries(below)] if isinstance(node, list) else []


def test_page_with_tls_that_is_made_replaced_and_taken_away(registry: Registry, tmp_path: Path) -> None:
    cert, key = tmp_path / "a" / "cert.pem", tmp_path / "b" / "key.pem"
    settings = {
        "crio.metrics.enable_metrics": True,
        "crio.metrics.metrics_port": 0,
        "crio.metrics.metrics_cert": str(cert),
        "crio.metrics.metrics_key": str(key),
        "crio.metrics.metrics_collectors": ["container_runtime_crio_operations_total", "crio_default_runtime", "nonsense"],
    }
    (tmp_path / "node").mkdir()
    with running_daemon(tmp_path / "node", settings=settings) as daemon:
        assert key.stat().st_mode & 0o777 == 0o600
        assert "names metrics that there are not" in daemon.log()
        assert url(daemon).startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cadata=cert.read_text())
        with urllib.request.urlopen(url(daemon), timeout=30, context=context) as answer:
            text = answer.read().decode()
        assert f"{PREFIX}default_runtime" in text
        assert f"{PREFIX}image_pulls" not in text

        argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        argv += ["-subj", "/CN=other", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
        subprocess.run(argv, check=True, capture_output=True)
        second = cert.read_text()
        wait_for(lambda: _shown_certificate(daemon) == ssl.PEM_cert_to_DER_cert(second))
        cert.unlink()
        wait_for(lambda: "the previous ones stay in use" in daemon.log())
        assert _shown_certificate(daemon) == ssl.PEM_cert_to_DER_cert(second)


def _shown_certificate(daemon: Daemon) -> bytes:
    host, port = url(daemon).removeprefix("https://").removesuffix("/metrics").split(":")
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port)), timeout=30))


def test_without_metrics_their_route_says_how_to_have_them(tmp_path: Path) -> None:
    with running_daemon(tmp_path) as daemon:
        status, body = by_socket(str(daemon.socket))
    assert status == 404
    assert b"enable_metrics" in body
