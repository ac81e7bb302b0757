"""Where metrics are served: addresses and certificates. What is served: tests/node/daemon/test_daemon_prometheus.py."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from criollo.aio import threads
from criollo.config.settings import defaults
from criollo.config.telemetry import Metrics
from criollo.daemon.metrics_port import _address, _certificates
from criollo.errors import CriolloError, Invalid


@pytest.mark.parametrize(("host", "address"), [("", ""), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")])
def test_addresses_stay(host: str, address: str) -> None:
    assert _address(host) == address


def test_name_becomes_an_address() -> None:
    assert _address("localhost") in ("127.0.0.1", "::1")


def test_name_of_nobody_is_refused() -> None:
    with pytest.raises(Invalid, match="metrics_host"):
        _address("no name at all")


def test_half_a_pair_of_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cert").write_text("no certificate")
    metrics = Metrics(metrics_cert=str(tmp_path / "cert"), metrics_key=str(tmp_path / "key"))
    settings = msgspec.structs.replace(defaults(systemd=False), metrics=metrics)

    async def run() -> None:
        try:
            await _certificates(settings, "127.0.0.1")
        finally:
            threads.close()

    with pytest.raises(CriolloError, match="metrics"):
        asyncio.run(run())
    assert not (tmp_path / "key").exists()
