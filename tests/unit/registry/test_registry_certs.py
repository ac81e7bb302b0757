"""Certificates by host directory."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_an_authority_that_is_a_link_to_nothing_is_passed_over(tmp_path, put):
    there = put("r.example/there.crt")
    (tmp_path / "r.example/absent.crt").symlink_to("/etc/rhsm/ca/no-such.pem")
    (tmp_path / "r.example/link.crt").symlink_to("there.crt")
    assert find_tls([tmp_path], "r.example").authorities == (str(tmp_path / "r.example/link.crt"), there)


@given(st.sets(st.from_regex(r"[a-c]\.(crt|cert|key|txt)", fullmatch=True), max_size=6))
def test_any_directory_is_read_or_refused(tmp_path_factory, names):
    directory = tmp_path_factory.mktemp("certs") / "r.example"
    directory.mkdir()
    for name in names:
        (directory / name).write_text("x")
    stems = {name.rpartition(".")[0] for name in names if name.endswith((".cert", ".key"))}
    try:
        found = find_tls([directory.parent], "r.example")
    except Invalid:
        assert any({f"{stem}.cert", f"{stem}.key"} - names for stem in stems)
        return
    assert all({f"{stem}.cert", f"{stem}.key"} <= names for stem in stems)
    assert found.authorities == tuple(str(directory / name) for name in sorted(names) if name.endswith(".crt"))
    assert bool(found.certificate) == bool(stems)


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


def test_a_certificate_may_hold_its_key(tmp_path, put):
    name = put("r.example/me.cert")
    (tmp_path / "r.example/me.cert").write_text("-----BEGIN CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\n")
    found = find_tls([tmp_path], "r.example")
    assert (found.certificate, found.key) == (name, name)


def test_certificates_of_default_are_for_hosts_without_a_directory(tmp_path, put):
    name = put("_default/a.crt")
    assert find_tls([tmp_path], "r.example:5000").authorities == (name,)
    put("r.example_5000_/notes")
    assert find_tls([tmp_path], "r.example:5000") == NO_TLS
    assert find_tls([tmp_path], "../x") == NO_TLS


def test_certificates_beside_a_hosts_toml_of_default_are_for_nobody(tmp_path, put):
    put("_default/a.crt")
    put("_default/hosts.toml")
    assert find_tls([tmp_path], "r.example") == NO_TLS


def test_the_directory_with_underscores_hides_the_one_with_a_colon(tmp_path, put):
    name = put("r.example:5000/hosts.toml")
    assert find_hosts_toml([tmp_path], "r.example:5000") == (Path(name), b"x")
    put("r.example_5000_/notes")
    put("_default/hosts.toml")
    assert find_hosts_toml([tmp_path], "r.example:5000") is None


def test_a_directory_of_the_host_hides_default_beside_it_alone(tmp_path, put):
    put("one/r.example/notes")
    put("one/_default/hosts.toml")
    assert find_hosts_toml([tmp_path / "one"], "r.example") is None
    general = put("two/_default/hosts.toml")
    assert find_hosts_toml([tmp_path / "one", tmp_path / "two"], "r.example") == (Path(general), b"x")
    own = put("three/r.example/hosts.toml")
    assert find_hosts_toml([tmp_path / each for each in ("one", "two", "three")], "r.example") == (Path(own), b"x")


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
