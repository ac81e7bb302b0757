"""Certificates: loaded, replaced while they are in use, kept when the new ones are broken."""

import asyncio
import logging
import ssl
import subprocess
from pathlib import Path

import pytest

from criollo.errors import Invalid
from criollo.streaming.tls import Certificates, TlsFiles


def certificate(directory: Path, name: str = "tls") -> TlsFiles:
    """A certificate for 127.0.0.1 that signs itself."""
    cert, key = directory / f"{name}.crt", directory / f"{name}.key"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    argv += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(argv, check=True, capture_output=True)
    return TlsFiles(cert=cert, key=key)


def test_context_is_as_the_settings_say(tmp_path: Path) -> None:
    files = certificate(tmp_path)
    chosen = TlsFiles(
        cert=files.cert,
        key=files.key,
        ca=files.cert,
        minimum=ssl.TLSVersion.TLSv1_2,
        ciphers=("ECDHE-ECDSA-AES128-GCM-SHA256",),
    )
    certificates = Certificates(chosen)
    assert certificates.load()
    context = certificates.context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    old = [suite["name"] for suite in context.get_ciphers() if suite["protocol"] == "TLSv1.2"]
    assert old == ["ECDHE-ECDSA-AES128-GCM-SHA256"]


def test_same_files_are_not_loaded_twice(tmp_path: Path) -> None:
    certificates = Certificates(certificate(tmp_path))
    assert certificates.load()
    assert not certificates.load()


@pytest.mark.parametrize(
    ("broken", "field"),
    [("cert", "stream_tls_cert"), ("key", "stream_tls_cert"), ("ca", "stream_tls_ca")],
)
@pytest.mark.parametrize("content", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_broken_file_is_named_and_the_old_ones_stay(tmp_path: Path, broken: str, field: str, content: bytes) -> None:
    files = certificate(tmp_path)
    ca = tmp_path / "ca.crt"
    ca.write_bytes(files.cert.read_bytes())
    certificates = Certificates(TlsFiles(cert=files.cert, key=files.key, ca=ca))
    certificates.load()
    context = certificates.context
    getattr(certificates.files, broken).write_bytes(content)
    with pytest.raises(Invalid) as refused:
        certificates.load()
    assert refused.value.field == field
    assert certificates.context is context


def test_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    one, two = certificate(tmp_path, "one"), certificate(tmp_path, "two")
    with pytest.raises(Invalid, match="stream_tls_cert"):
        Certificates(TlsFiles(cert=one.cert, key=two.key)).load()


def test_encrypted_key_is_refused_without_asking(tmp_path: Path) -> None:
    files = certificate(tmp_path)
    encrypted = tmp_path / "encrypted.key"
    argv = ["openssl", "pkey", "-in", str(files.key), "-aes256", "-passout", "pass:secret", "-out", str(encrypted)]
    subprocess.run(argv, check=True, capture_output=True)
    with pytest.raises(Invalid, match="not encrypted"):
        Certificates(TlsFiles(cert=files.cert, key=encrypted)).load()


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="No such file"):
        Certificates(TlsFiles(cert=tmp_path / "none", key=tmp_path / "none")).load()


def test_changed_files_are_loaded_while_serving(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files, other = certificate(tmp_path), certificate(tmp_path, "other")
    certificates = Certificates(files)
    certificates.load()
    first = certificates.context

    async def said(text: str) -> None:
        async with asyncio.timeout(60):
            while text not in caplog.text:
                await asyncio.sleep(0.02)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(certificates.watch())
            await asyncio.sleep(0.1)
            files.cert.write_bytes(b"junk")
            await said("the previous ones stay in use")
            assert certificates.context is first
            files.key.write_bytes(other.key.read_bytes())
            files.cert.write_bytes(other.cert.read_bytes())
            await said("reloading certificates")
            watching.cancel()

    with caplog.at_level(logging.DEBUG):
        asyncio.run(main())
    assert certificates.context is not first
