"""The streaming port with TLS, and the settings of streams, each with a daemon of its own."""

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import streaming
from support.cri import pb
from support.daemon import Daemon, running_daemon, wait_for
from support.registry import Registry


@contextlib.contextmanager
def node(registry: Registry, directory: Path, **settings: Any) -> Iterator[tuple[Daemon, str]]:
    """A daemon with these keys of [crio.api], and a running container."""
    keys = {f"crio.api.{name}": value for name, value in settings.items()}
    with running_daemon(directory, settings=keys, registries=registry.registries_conf()) as daemon:
        daemon.pull(registry.reference("busybox"))
        config = daemon.container_config(registry.reference("busybox"), "sleep", "1000")
        yield daemon, daemon.run_container(daemon.run_pod(), config)


def exec_url(daemon: Daemon, container_id: str, *command: str) -> str:
    request = pb.ExecRequest(container_id=container_id, cmd=list(command), stdout=True, stderr=True)
    return str(daemon.cri.call("Exec", request).url)


def certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    cert, key = directory / f"{name}.crt", directory / f"{name}.key"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    argv += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(argv, check=True, capture_output=True)
    return cert, key


def trusting(cert: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(cert))


def test_streams_over_tls_and_a_certificate_that_is_replaced(registry: Registry, tmp_path: Path) -> None:
    (cert, key), (cert2, key2) = certificate(tmp_path, "one"), certificate(tmp_path, "two")
    used = {"stream_tls_cert": str(tmp_path / "tls.crt"), "stream_tls_key": str(tmp_path / "tls.key")}
    (tmp_path / "tls.crt").write_bytes(cert.read_bytes())
    (tmp_path / "tls.key").write_bytes(key.read_bytes())
    with node(registry, tmp_path / "node", stream_enable_tls=True, **used) as (daemon, container):
        assert "TLS enabled for streaming server" in daemon.log()
        url = exec_url(daemon, container, "echo", "hello")
        assert url.startswith("https://127.0.0.1:")
        assert asyncio.run(streaming.run(url, context=trusting(cert))).stdout == b"hello\n"

        (tmp_path / "tls.crt").write_bytes(b"no certificate")
        wait_for(lambda: "the previous ones stay in use" in daemon.log())
        assert (
            asyncio.run(streaming.run(exec_url(daemon, container, "echo", "kept"), context=trusting(cert))).stdout == b"kept\n"
        )

        def replace() -> None:
            (tmp_path / "tls.key").write_bytes(key2.read_bytes())
            (tmp_path / "tls.crt").write_bytes(cert2.read_bytes())
            wait_for(lambda: "reloading certificates" in daemon.log())

        request = pb.ExecRequest(container_id=container, cmd=["cat"], stdin=True, stdout=True)
        old, new = daemon.cri.call("Exec", request).url, exec_url(daemon, container, "echo", "new")
        assert asyncio.run(over_a_change(old, replace, new, trusting(cert), trusting(cert2))) == (b"new\n", b"lives\n")


async def over_a_change(old: str, change: Callable[[], None], new: str, *contexts: ssl.SSLContext) -> tuple[bytes, bytes]:
    """What a new session gives after a change, and then one that was open before it."""
    async with streaming.spdy(old, context=contexts[0]) as connection:
        streams = await streaming.process_streams(connection, "error", "stdin", "stdout")
        await streams["stdin"].write(b"x")
        assert await streams["stdout"].read() == b"x"
        await asyncio.get_running_loop().run_in_executor(None, change)
        fresh = await streaming.run(new, context=contexts[1])
        await streams["stdin"].write(b"lives\n")
        await streams["stdin"].close()
        return fresh.stdout, await streaming.drink(streams["stdout"])


def test_only_the_listed_ciphers_are_spoken(registry: Registry, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "server")
    settings = {"stream_tls_cert": str(cert), "stream_tls_key": str(key), "tls_min_version": "VersionTLS12"}
    settings |= {"tls_cipher_suites": ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"]}
    with node(registry, tmp_path / "node", stream_enable_tls=True, **settings) as (daemon, container):

        def speaking(cipher: str) -> ssl.SSLContext:
            context = trusting(cert)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(cipher)
            return context

        other, listed = (speaking(f"ECDHE-ECDSA-AES{bits}-GCM-SHA{size}") for bits, size in ((128, 256), (256, 384)))
        with pytest.raises(OSError, match=r"(?i)handshake|reset|^$"):
            asyncio.run(streaming.run(exec_url(daemon, container, "true"), context=other))
        assert asyncio.run(streaming.run(exec_url(daemon, container, "echo", "hello"), context=listed)).stdout == b"hello\n"


def test_client_without_a_certificate_is_refused_where_authorities_are_set(registry: Registry, tmp_path: Path) -> None:
    (cert, key), (client, client_key) = certificate(tmp_path, "server"), certificate(tmp_path, "client")
    settings = {"stream_tls_cert": str(cert), "stream_tls_key": str(key), "stream_tls_ca": str(client)}
    settings |= {"tls_min_version": "VersionTLS13"}
    with node(registry, tmp_path / "node", stream_enable_tls=True, **settings) as (daemon, container):
        with pytest.raises(OSError, match=r"(?i)certificate|reset|no answer"):
            asyncio.run(streaming.run(exec_url(daemon, container, "true"), context=trusting(cert)))
        old = trusting(cert)
        old.load_cert_chain(client, client_key)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(OSError, match=r"(?i)version|reset|^$"):
            asyncio.run(streaming.run(exec_url(daemon, container, "true"), context=old))
        known = trusting(cert)
        known.load_cert_chain(client, client_key)
        data = bytes(20 << 20)
        request = pb.ExecRequest(container_id=container, cmd=["cat"], stdin=True, stdout=True, stderr=True)
        url = daemon.cri.call("Exec", request).url
        assert asyncio.run(streaming.run(url, stdin=data, context=known)).stdout == data


def test_session_without_bytes_ends_after_its_time(registry: Registry, tmp_path: Path) -> None:
    with node(registry, tmp_path / "node", stream_idle_timeout="1s") as (daemon, container):
        outcome = asyncio.run(streaming.run(exec_url(daemon, container, "sleep", "1000")))
        assert "idle for 1 s" in outcome.status["message"]


def test_session_with_a_byte_now_and_then_outlives_its_time(registry: Registry, tmp_path: Path) -> None:
    with node(registry, tmp_path / "node", stream_idle_timeout="1s") as (daemon, container):
        script = "for n in 1 2 3 4 5 6; do sleep 0.5; echo $n; done"
        outcome = asyncio.run(streaming.run(exec_url(daemon, container, "sh", "-c", script)))
        assert (outcome.stdout, outcome.status["status"]) == (b"1\n2\n3\n4\n5\n6\n", "Success")


def test_all_addresses_without_tls_are_warned_of(registry: Registry, tmp_path: Path) -> None:
    with node(registry, tmp_path / "node", stream_address="") as (daemon, container):
        assert "beyond loopback without TLS" in daemon.log()
        url = exec_url(daemon, container, "echo", "hello")
        assert "://[::]" not in url
        assert "://0.0.0.0" not in url
        assert asyncio.run(streaming.run(url)).stdout == b"hello\n"


def test_taken_port_is_told(registry: Registry, tmp_path: Path) -> None:
    with node(registry, tmp_path / "node", stream_port="0") as (daemon, container):
        port = exec_url(daemon, container, "true").split(":")[2].split("/")[0]
        daemon.stop()
        config = daemon.place / "crio.conf"
        config.write_text(config.read_text().replace('stream_port = "0"', f'stream_port = "{port}"'))
        with socket.create_server(("127.0.0.1", int(port))):
            daemon.start(wait=False)
            assert daemon.process is not None
            assert daemon.process.wait(30) == 1
            daemon.process = None
        assert f"cannot listen for streams on 127.0.0.1, port {port}" in daemon.log()
