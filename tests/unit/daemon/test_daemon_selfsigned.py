"""A certificate that is signed by itself."""

import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from criollo.daemon.selfsigned import main, make


def test_certificate_serves_its_names_and_belongs_to_its_key(tmp_path: Path) -> None:
    cert, key = tmp_path / "a" / "cert", tmp_path / "b" / "key"
    assert main([str(cert), str(key), "node1", "127.0.0.1"]) == 0
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    names = x509.load_pem_x509_certificate(cert.read_bytes()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["node1"]
    assert names.value.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]
    assert key.stat().st_mode & 0o777 == 0o600


def test_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("mine")
    with pytest.raises(FileExistsError):
        main([str(tmp_path / "cert"), str(tmp_path / "key"), "node1"])
    assert (tmp_path / "key").read_text() == "mine"
    assert not (tmp_path / "cert").exists()


def test_two_are_different() -> None:
    assert make(["a"])[1] != make(["a"])[1]


def test_a_key_whose_certificate_cannot_be_written_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / "no-directory").touch()
    with pytest.raises(OSError, match="no-directory"):
        main([str(tmp_path / "no-directory/cert.pem"), str(tmp_path / "key.pem"), "localhost"])
    assert [each.name for each in tmp_path.iterdir()] == ["no-directory"]
