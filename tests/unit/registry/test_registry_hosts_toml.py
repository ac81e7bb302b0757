"""hosts.toml: order, capabilities, paths, files, headers, and what is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.as_containerd import full_queue
from support.as_skopeo import ONCE
from support.asking import ask

from criollo.errors import Forbidden, Invalid, Unavailable
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.registry.endpoints import PULL, PUSH, RESOLVE
from criollo.registry.hosts import Hosts
from criollo.registry.hosts_toml import parse
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


@pytest.mark.parametrize("server", ["localhost:5000", "a.example", "[::1]:5000"])
def test_a_server_without_scheme_is_https(server):
    (endpoint,) = read(f'server = "{server}"').endpoints(REF, capability=PULL)
    assert urls([endpoint]) == [f"https://{server}/v2/team/app"]


@pytest.mark.parametrize(
    ("domain", "schemes", "is_insecure"),
    [
        ("r.example", ("https",), False),
        ("r.example:80", ("https",), False),
        ("localhost", ("https",), True),
        ("localhost:443", ("https",), True),
        ("127.0.0.1:80", ("http",), True),
        ("127.1.2.3:5000", ("https", "http"), True),
        ("[::1]:5000", ("https", "http"), True),
        ("localhost.example:5000", ("https",), False),
        ("[::2]:5000", ("https",), False),
    ],
)
def test_who_has_no_server_named_is_asked_as_containerd_asks(domain, schemes, is_insecure):
    (endpoint,) = read("", domain).endpoints(Reference.parse(f"{domain}/app"), capability=PULL)
    assert (endpoint.host, endpoint.schemes, endpoint.is_insecure) == (domain, schemes, is_insecure)
    assert endpoint.namespace == ""


def test_plain_http_without_verification_tries_tls_first_but_at_its_own_port():
    text = '[host."http://a.example:5000"]\nskip_verify = true\n[host."http://b.example"]\nskip_verify = true'
    found = read(text).endpoints(REF, capability=PULL)
    assert [each.schemes for each in found] == [("https", "http"), ("http",), ("https",)]


@pytest.mark.parametrize("url", ["https://docker.io", "registry-1.docker.io", "https://docker.io:443"])
def test_docker_hub_is_itself_by_either_name(url):
    (endpoint,) = read(f'server = "{url}"', "docker.io").endpoints(Reference.parse("busybox"), capability=PULL)
    assert (endpoint.host, endpoint.api_host, endpoint.namespace) == ("docker.io", "registry-1.docker.io", "")


def test_a_port_that_goes_without_saying_is_the_same_host():
    (endpoint,) = read("", "r.example:443").endpoints(Reference.parse("r.example:443/app"), capability=PULL)
    assert (endpoint.host, endpoint.namespace) == ("r.example:443", "")


def test_a_path_and_capabilities_are_about_a_server_that_is_named():
    text = 'capabilities = ["push"]\noverride_path = true\nskip_verify = true\nca = "a.crt"'
    (endpoint,) = read(text).endpoints(REF, capability=RESOLVE)
    assert (urls([endpoint]), endpoint.is_insecure) == (["https://r.example/v2/team/app"], True)
    assert endpoint.tls.authorities == ("/certs.d/r.example/a.crt",)


@pytest.mark.parametrize(
    ("client", "certificate", "key"),
    [
        ('"both.pem"', "both.pem", "both.pem"),
        ('["both.pem", "b.pem"]', "both.pem", "both.pem"),
        ('[["a.pem", "b.pem"]]', "a.pem", "b.pem"),
        ('[["a.pem", ""]]', "a.pem", "a.pem"),
        ('[["/a.pem", "/b.pem"], "c.pem"]', "/a.pem", "/b.pem"),
        ("[]", "", ""),
    ],
)
def test_a_client_may_be_one_file_or_several(client, certificate, key):
    tls = read(f"client = {client}").server.tls
    assert (tls.certificate, tls.key) == tuple(str(PATH.parent / each) if each else "" for each in (certificate, key))


# Whom to ask ----------------------------------------------------------------------------------------------------------


def able(capabilities, capability, head=""):
    text = f'{head}\n[host."https://m.example"]\ncapabilities = {capabilities}'
    return [each.host for each in read(text).endpoints(REF, capability=capability)]


@pytest.mark.parametrize(
    ("capabilities", "resolve", "pull", "push"),
    [
        ("[]", True, True, False),
        ('["pull"]', False, True, False),
        ('["resolve"]', False, False, False),
        ('["Pull", "RESOLVE"]', True, True, False),
        ('["push"]', False, False, True),
        ('["pull", "resolve", "push", "referrers"]', True, True, True),
    ],
)
def test_a_host_is_asked_for_what_it_can(capabilities, resolve, pull, push):
    found = [able(capabilities, capability) for capability in (RESOLVE, PULL, PUSH)]
    assert found == [["m.example", "r.example"] if is_able else ["r.example"] for is_able in (resolve, pull, push)]


def test_the_server_is_asked_for_what_it_can_and_the_last_one_is_no_mirror():
    server = 'server = "https://s.example"\ncapabilities = ["pull"]'
    (last,) = read(f'{server}\n[host."https://m.example"]').endpoints(REF, capability=RESOLVE)
    assert (last.host, last.is_mirror) == ("m.example", False)
    assert last.because.endswith("host m.example")


@pytest.mark.parametrize(("capability", "words"), [(RESOLVE, "pull and resolve"), (PUSH, "push")])
def test_nobody_to_ask_is_said(capability, words):
    server = 'server = "https://s.example"\ncapabilities = ["pull"]'
    with pytest.raises(Forbidden, match=f"no host of /certs.d/r.example/hosts.toml has the capabilities {words}; "):
        able('["pull"]', capability, server)


def test_a_push_goes_to_the_first_host_that_is_said_to_take_it(directory):
    root = directory("r.example", '[host."https://a.example"]\n[host."https://b.example"]\ncapabilities = ["push"]')
    home = Hosts(directories=[root]).home(REF)
    assert (home.host, home.is_mirror) == ("b.example", False)
    root = directory("r.example", '[host."https://a.example"]')
    assert Hosts(directories=[root]).home(REF).host == "r.example"


# Headers and durations ------------------------------------------------------------------------------------------------


def test_headers_of_the_protocol_are_left_out_and_two_take_the_place_of_ours():
    lines = [
        'Host = "x"',
        'accept = "x"',
        'RANGE = "x"',
        'user-agent = "a"',
        'AUTHORIZATION = "b"',
        'X_y = ["c", "d"]',
        "Z = []",
    ]
    text = "\n".join(["[header]", *lines])
    assert read(text).server.headers == (("User-Agent", "a"), ("Authorization", "b"), ("X_y", "c, d"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("", 0), ("0", 0), ("0s", 0), ("1s", 1), ("1.5s", 1.5), (".5s", 0.5), ("1.s", 1), ("+2s", 2)),
        *(("500ms", 0.5), ("1m30s", 90), ("1h", 3600), ("9h", 3600), ("1ns", 0.001), ("2000us", 0.002), ("2000µs", 0.002)),
    ],
)
def test_a_duration_is_read_as_go_writes_it(text, seconds):
    server = read(f'dial_timeout = "{text}"').server
    assert server.dial_s == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["1", "soon", "-1s", "1 s", "s", "1s1", "1d", ".s", "1e3s", "١s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(Invalid, match=r"hosts\.toml.*dial_timeout.*a duration such as"):
        read(f'dial_timeout = "{text}"')


@given(st.text(alphabet="0123456789.hmsnuµ+-", max_size=12))
def test_any_duration_is_within_bounds_or_refused(text):
    try:
        found = read(f'dial_timeout = "{text}"').server.dial_s
    except Invalid:
        return
    assert 0 <= found <= 3600


def test_a_connection_may_take_as_long_as_the_file_says(directory):
    with full_queue() as host:
        root = directory("r.example", f'[host."http://{host}"]\ndial_timeout = "50ms"')
        hosts = Hosts(directories=[root])
        with pytest.raises(Unavailable, match=r"no connection within 0\.05 s"):
            ask(hosts, lambda client: client.probe(REF, hosts.endpoints(REF)[0]), limits=ONCE)


@pytest.mark.parametrize(
    "text",
    [
        "x = ",
        "server = 7",
        'server = "ftp://a"',
        'server = "https://u:hunter2@a"',
        'server = "https://a/?x=1"',
        'server = "https://a/../b"',
        'server = "https://a:99999"',
        'server = "https://"',
        "host = 7",
        '[host."https://a"]\ncapabilities = "pull"',
        '[host."https://a"]\ncapabilities = ["pul"]',
        '[host."https://a"]\nskip_verify = "false"',
        '[host."https://a"]\noverride_path = 1',
        '[host."https://a"]\nca = 7',
        '[host."https://a"]\nclient = [[]]',
        '[host."https://a"]\nclient = [["a", "b", "c"]]',
        '[host."https://a"]\nclient = [["a"]]',
        '[host."https://a"]\nclient = [["", "b"]]',
        '[host."https://a"]\nclient = ["a.pem", 7]',
        '[host."https://a"]\nca = ""',
        '[host."https://a"]\nca = ["a", 7]',
        '[host."https://a"]\ndial_timeout = 7',
        '[host."https://a"]\ndial_timeout = "u:hunter2@a"',
        '[host."https://a"]\ncapabilities = ["u:hunter2@a"]',
        '[host."https://a"]\nca = ["u:hunter2@a", ""]',
        '[host."https://a"]\nclient = [["", "u:hunter2@a"]]',
        '[host."https://a"]\nclient = 7',
        '[host."https://a".header]\n"X@hunter2" = "x"',
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


def test_what_registries_conf_blocks_is_not_asked_as_a_host_of_hosts_toml(directory):
    root = directory("r.example", '[host."https://m.example"]\n[host."https://n.example"]')
    blocked = [Rule(prefix=prefix, location=prefix, blocked=True) for prefix in ("m.example", "n.example/team")]
    assert [each.host for each in Hosts(blocked[:1], directories=[root]).endpoints(REF)] == ["n.example", "r.example"]
    assert [each.host for each in Hosts(blocked, directories=[root]).endpoints(REF)] == ["r.example"]
    assert [each.host for each in Hosts(blocked, directories=[root]).endpoints(Reference.parse("r.example/x"))] == [
        "n.example",
        "r.example",
    ]


def test_a_server_that_registries_conf_blocks_leaves_its_mirrors(directory):
    root = directory("r.example", 'server = "https://s.example"\n[host."https://m.example"]')
    blocked = [Rule(prefix=prefix, location=prefix, blocked=True) for prefix in ("s.example", "m.example")]
    (last,) = Hosts(blocked[:1], directories=[root]).endpoints(REF)
    assert (last.host, last.is_mirror) == ("m.example", False)
    with pytest.raises(Forbidden, match=r"registries\.conf blocks each host of .*hosts\.toml"):
        Hosts(blocked, directories=[root]).endpoints(REF)


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
