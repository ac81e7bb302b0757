"""hosts.toml: order, capabilities, paths, files, headers, and what is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.registry.hosts import Hosts
from criollo.registry.hosts_toml import PULL, RESOLVE, parse
from criollo.registry.registries_conf import Rule

PATH = Path("/certs.d/r.example/hosts.toml")
REF = Reference.parse("r.example/team/app:1")
FULL = """
server = "https://r.example"
[host."https://m1.example:5000/cache"]
  capabilities = ["pull"]
  ca = "m1.crt"
  client = [["m1.cert", "m1.key"]]
[host."http://m2.example"]
  skip_verify = true
[host."https://m3.example/v2/proxy"]
  override_path = true
  [host."https://m3.example/v2/proxy".header]
    X-Key = ["hunter2", "b"]
"""


def read(text, domain="r.example"):
    return parse(text.encode(), path=PATH, domain=domain)


def urls(endpoints):
    return [f"{each.scheme}://{each.api_host}{each.base}/{each.repository}" for each in endpoints]


def test_mirrors_come_in_the_order_of_the_file_and_the_registry_last():
    assert urls(read(FULL).endpoints(REF, capability=PULL)) == [
        "https://m1.example:5000/cache/v2/team/app",
        "http://m2.example/v2/team/app",
        "https://m3.example/v2/proxy/team/app",
        "https://r.example/v2/team/app",
    ]


def test_only_who_can_resolve_is_asked_what_a_tag_means():
    assert [each.host for each in read(FULL).endpoints(REF, capability=RESOLVE)] == ["m2.example", "m3.example", "r.example"]


def test_files_are_relative_to_the_directory_and_stay_with_their_host():
    m1, m2, *_ = read(FULL).endpoints(REF, capability=PULL)
    assert m1.tls.authorities == ("/certs.d/r.example/m1.crt",)
    assert (m1.tls.certificate, m1.tls.key) == ("/certs.d/r.example/m1.cert", "/certs.d/r.example/m1.key")
    assert m2.tls.authorities == ()


def test_plain_and_unverified_are_marked_and_nothing_else():
    assert [each.is_insecure for each in read(FULL).endpoints(REF, capability=PULL)] == [False, True, False, False]


def test_a_mirror_is_told_whom_it_stands_for():
    assert [each.namespace for each in read(FULL).endpoints(REF, capability=PULL)] == ["r.example"] * 3 + [""]


def test_headers_are_sent_and_never_shown():
    m3 = read(FULL).endpoints(REF, capability=PULL)[2]
    assert m3.headers == (("X-Key", "hunter2, b"),)
    assert "hunter2" not in repr(m3) + str(m3) + repr(read(FULL))


def test_docker_hub_keeps_its_name_for_credentials():
    (endpoint,) = read("", "docker.io").endpoints(Reference.parse("busybox"), capability=PULL)
    assert (endpoint.host, endpoint.api_host) == ("docker.io", "registry-1.docker.io")


@pytest.mark.parametrize(
    ("server", "url"), [("localhost:5000", "http://localhost:5000/v2"), ("a.example", "https://a.example/v2")]
)
def test_a_server_without_scheme_is_https_but_here(server, url):
    (endpoint,) = read(f'server = "{server}"').endpoints(REF, capability=PULL)
    assert urls([endpoint]) == [f"{url}/team/app"]


def test_a_client_may_be_one_file_or_several():
    one = read('client = "both.pem"').server.tls
    assert (one.certificate, one.key) == ("/certs.d/r.example/both.pem",) * 2
    assert read('client = [["a.pem", "b.pem"]]').server.tls.key == "/certs.d/r.example/b.pem"


@pytest.mark.parametrize(
    "text",
    [
        "x = ",
        "server = 7",
        'server = "ftp://a"',
        'server = "https://u:hunter2@a"',
        'server = "https://a/?x=1"',
        'server = "https://a/../b"',
        "host = 7",
        '[host."https://a"]\ncapabilities = "pull"',
        '[host."https://a"]\ncapabilities = ["pul"]',
        '[host."https://a"]\nskip_verify = "false"',
        '[host."https://a"]\noverride_path = 1',
        '[host."https://a"]\nca = 7',
        '[host."https://a"]\nclient = [[]]',
        '[host."https://a"]\nclient = [["a", "b", "c"]]',
        '[host."https://a"]\nclient = 7',
        '[host."https://a".header]\nHost = "x"',
        '[host."https://a".header]\n"X Y" = "x"',
        '[host."https://a".header]\nX = "hunter2\\r\\nY: z"',
        '[host."https://a".header]\nX = 7',
        '[host."a b"]',
        '[host."https://u:hunter2@a"]\n[host."https://u:hunter2@a"]',
    ],
)
def test_a_malformed_file_is_refused_without_its_secrets(text):
    with pytest.raises(Invalid, match=r"hosts\.toml") as caught:
        read(text)
    assert "hunter2" not in str(caught.value)


@pytest.fixture
def directory(tmp_path):
    def write(host, text):
        (tmp_path / host).mkdir(exist_ok=True)
        (tmp_path / host / "hosts.toml").write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize("name", ["r.example:5000", "r.example_5000_", "_default"])
def test_a_directory_is_found_by_either_spelling_of_the_port(directory, name):
    root = directory(name, '[host."https://m.example"]')
    found = Hosts(directories=[root]).endpoints(Reference.parse("r.example:5000/app"))
    assert [each.host for each in found] == ["m.example", "r.example:5000"]


def test_a_table_of_registries_conf_wins_over_hosts_toml(directory):
    root = directory("r.example", '[host."https://m.example"]')
    rules = [Rule(prefix="r.example/team", location="r.example/team")]
    hosts = Hosts(rules, directories=[root])
    assert [each.host for each in hosts.endpoints(REF)] == ["r.example"]
    assert [each.host for each in hosts.endpoints(Reference.parse("r.example/other"))] == ["m.example", "r.example"]


def test_a_change_counts_at_the_next_pull(directory):
    root = directory("r.example", '[host."https://m.example"]')
    hosts = Hosts(directories=[root])
    assert len(hosts.endpoints(REF)) == 2
    directory("r.example", "")
    assert len(hosts.endpoints(REF)) == 1


def test_a_reference_by_digest_needs_no_resolving(directory):
    root = directory("r.example", '[host."https://m.example"]\ncapabilities = ["pull"]')
    hosts = Hosts(directories=[root])
    assert len(hosts.endpoints(REF)) == 1
    assert len(hosts.endpoints(REF, for_content=True)) == 2
    assert len(hosts.endpoints(REF.with_digest(Digest.of(b"x")))) == 2


@given(st.text(max_size=80))
def test_any_text_is_a_file_or_refused(text):
    try:
        parse(text.encode("utf-8", "surrogatepass"), path=PATH, domain="r.example")
    except Invalid:
        return


@given(st.text(alphabet="abhtps:/.?#@[]0 ", max_size=24))
def test_any_address_is_a_server_or_refused(url):
    text = f'server = "{url}"'
    try:
        found = read(text)
    except Invalid:
        return
    assert found.server.scheme in ("http", "https")
    assert "@" not in found.server.netloc


@pytest.mark.parametrize("key", ["capabilites", "capability", "skip-verify", "Ca", "servers", "headers"])
@pytest.mark.parametrize("head", ["", '[host."https://m.example"]'])
def test_a_misspelt_key_is_refused_with_the_nearest(key, head):
    with pytest.raises(Invalid, match=rf"hosts\.toml.*got '{key}', expected "):
        parse(f"{head}\n{key} = 7".encode(), path=PATH, domain="r.example")


def test_a_key_like_no_other_is_passed_over():
    found = parse(b'[host."https://m.example"]\nfuture_thing = 7', path=PATH, domain="r.example")
    assert [server.netloc for server in found.mirrors] == ["m.example"]
