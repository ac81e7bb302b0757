"""Certificates by host directory."""

import pytest

from criollo.errors import Invalid
from criollo.registry.certs import find_directories, find_hosts_toml, find_tls
from criollo.registry.endpoints import NO_TLS


@pytest.fixture
def put(tmp_path):
    def write(path):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("x")
        return str(target)

    return write


def test_without_a_directory_there_is_nothing(tmp_path):
    assert find_tls([tmp_path, tmp_path / "absent"], "r.example:5000") == NO_TLS
    assert find_hosts_toml([tmp_path], "r.example") is None


def test_authorities_and_a_client_certificate_are_found_by_their_endings(tmp_path, put):
    names = [put(f"r.example:5000/{name}") for name in ("b.crt", "a.crt", "me.cert", "me.key", "notes.txt")]
    found = find_tls([tmp_path], "r.example:5000")
    assert found.authorities == (names[1], names[0])
    assert (found.certificate, found.key) == (names[2], names[3])
    assert find_tls([tmp_path], "r.example") == NO_TLS


def test_the_first_directory_with_the_host_decides(tmp_path, put):
    put("two/r.example/a.crt")
    (tmp_path / "one" / "r.example").mkdir(parents=True)
    assert find_tls([tmp_path / "one", tmp_path / "two"], "r.example") == NO_TLS
    assert find_tls([tmp_path / "two", tmp_path / "one"], "r.example").authorities


@pytest.mark.parametrize("name", ["me.cert", "me.key"])
def test_half_a_pair_is_refused(tmp_path, put, name):
    put(f"r.example/{name}")
    with pytest.raises(Invalid, match=r"me\.(key|cert) beside it"):
        find_tls([tmp_path], "r.example")


@pytest.mark.parametrize("host", ["..", "../x", "a/b", "", ".", "a\0b"])
def test_a_host_never_leads_elsewhere(tmp_path, put, host):
    put("x/a.crt")
    assert find_tls([tmp_path / "x"], host) == NO_TLS


def test_home_comes_before_the_system():
    assert [str(path) for path in find_directories({"HOME": "/h"})] == [
        "/h/.config/containers/certs.d",
        "/etc/containers/certs.d",
        "/etc/docker/certs.d",
        "/etc/containerd/certs.d",
    ]
