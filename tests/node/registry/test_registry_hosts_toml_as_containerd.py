"""hosts.toml means here what it means to containerd: the same files put to Debian's, and to us.

Where a case has `theirs`, the difference is meant; docs/registries.md says why. `since`: the first containerd that knows it.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from support.as_containerd import (
    Outcome,
    Servers,
    asked,
    containerd_version,
    ctr_fetches,
    ctr_pushes,
    outcome,
    run_servers,
    we_fetch,
    we_push,
)
from support.bad_registry import Handler, Reply
from support.containerd import Containerd, running_containerd
from support.images import file, make_image

from criollo.registry.hosts import Hosts

pytestmark = pytest.mark.node

NOT: Final = Outcome(False, "", "")


class Case(NamedTuple):
    """Files below certs.d by their names, with hosts by their labels in braces; the text `=t.crt` is that file's."""

    files: Mapping[str, str]
    expected: Outcome
    domain: str = "r.example"
    theirs: Outcome | None = None
    since: tuple[int, int] = (0, 0)


def from_toml(text: str, named: str, layer: str = "", **more: object) -> Case:
    """A case of one hosts.toml for r.example, whose server is `s` where the text names none."""
    whole = text if "server =" in text.partition("[")[0] else f'server = "http://{{s}}"\n{text}'
    headers = str(more.pop("headers", ""))
    where = f"{more.get('domain', 'r.example')}/hosts.toml"
    return Case({where: whole}, Outcome(bool(layer), named, layer, headers), **more)  # type: ignore[arg-type]


def got(named: str, layer: str = "", headers: str = "") -> Outcome:
    return Outcome(bool(layer), named, layer, headers)


def table(label: str, *lines: str, scheme: str = "http", path: str = "") -> str:
    return "\n".join([f'[host."{scheme}://{{{label}}}{path}"]', *lines, ""])


TLS: Final = {"scheme": "https"}
MUTE: Final = table("e")
MUTE_PULL: Final = table("e", 'capabilities = ["pull"]')
CASES: dict[str, Case] = {
    # Order
    "hosts in the order of the file, before the server": from_toml(table("e") + table("m") + table("n"), "e' m'", "m"),
    "the server last": from_toml(table("e"), "e' s'", "s"),
    "the server alone": from_toml("", "s'", "s", since=(1, 7)),
    "a host that is dead": from_toml(table("dead") + table("m"), "m'", "m"),
    "header tables before their hosts": from_toml(
        '[host."http://{e}".header]\nX-One = "1"\n' + table("m") + table("e"), "e' m'", "m", headers="e:x-one=1", since=(1, 7)
    ),
    # Capabilities
    "pull alone: content, no tags": from_toml(table("m", 'capabilities = ["pull"]'), "s'", "m"),
    "resolve alone: nothing": from_toml(table("m", 'capabilities = ["resolve"]'), "s'", "s", theirs=got("s'", "m")),
    "push alone: nothing": from_toml(table("m", 'capabilities = ["push"]'), "s'", "s", theirs=got("s'", "m")),
    "none: all": from_toml(table("m", "capabilities = []"), "m'", "m"),
    "in any case": from_toml(table("m", 'capabilities = ["PULL", "Resolve"]'), "m'", "m"),
    "of the server too": from_toml('server = "http://{s}"\ncapabilities = ["pull"]\n' + MUTE, "e'"),
    "of nobody": from_toml('server = "http://{s}"\ncapabilities = ["pull"]\n' + table("m", 'capabilities = ["pull"]'), ""),
    "unknown": from_toml(table("m", 'capabilities = ["pull", "fly"]'), "", theirs=NOT),
    # TLS
    "an unknown authority": from_toml(table("t", **TLS), "s'", "s"),
    "skip_verify": from_toml(table("t", "skip_verify = true", **TLS), "t'", "t"),
    "skip_verify of false": from_toml(table("t", "skip_verify = false", **TLS), "s'", "s"),
    "ca": from_toml(table("t", 'ca = "../../t.crt"', **TLS), "t'", "t"),
    "ca by its whole path": from_toml(table("t", 'ca = "{here}/t.crt"', **TLS), "t'", "t"),
    "ca of several": from_toml(table("t", 'ca = ["../../other.crt", "../../t.crt"]', **TLS), "t'", "t"),
    "ca of nobody": from_toml(table("t", "ca = []", **TLS), "s'", "s"),
    "ca of another": from_toml(table("t", 'ca = "../../other.crt"', **TLS), "s'", "s"),
    "ca that is not there": from_toml(table("t", 'ca = "absent.crt"', **TLS), "s'", "s", theirs=NOT),
    "ca that is none": from_toml(table("t", 'ca = "hosts.toml"', **TLS), "s'", "s", theirs=NOT),
    "ca for plain HTTP": from_toml(table("m", 'ca = "../../t.crt"'), "m'", "m"),
    "skip_verify for plain HTTP": from_toml(table("m", "skip_verify = true"), "m'", "m"),
    "skip_verify for plain HTTP that is TLS": from_toml(table("t", "skip_verify = true"), "t'", "t", since=(2, 0)),
    "plain HTTP that is TLS": from_toml(table("t"), "s'", "s"),
    "https that is plain HTTP": from_toml(table("m", **TLS), "s'", "s"),
    # Client certificates
    "no client": from_toml(table("c", 'ca = "../../c.crt"', **TLS), "s'", "s"),
    "client in one file": from_toml(table("c", 'ca = "../../c.crt"', 'client = "../../me.pem"', **TLS), "c'", "c"),
    "client in a list": from_toml(table("c", 'ca = "../../c.crt"', 'client = ["../../me.pem"]', **TLS), "c'", "c"),
    "client as a pair": from_toml(
        table("c", 'ca = "../../c.crt"', 'client = [["../../me.crt", "../../me.key"]]', **TLS), "c'", "c"
    ),
    "client as a pair of one file": from_toml(
        table("c", 'ca = "../../c.crt"', 'client = [["../../me.pem", ""]]', **TLS), "c'", "c", theirs=NOT
    ),
    "client of a stranger": from_toml(
        table("c", 'ca = "../../c.crt"', 'client = [["../../other.crt", "../../other.key"]]', **TLS), "s'", "s"
    ),
    "client that is not there": from_toml(table("c", 'ca = "../../c.crt"', 'client = "absent"', **TLS), "s'", "s", theirs=NOT),
    "client of several": from_toml(
        table("c", 'ca = "../../c.crt"', 'client = ["../../me.pem", "../../me.pem"]', **TLS), "c'", "c"
    ),
    "client for a server that asks for none": from_toml(
        table("t", 'ca = "../../t.crt"', 'client = "../../me.pem"', **TLS), "t'", "t"
    ),
    # Headers
    "a header": from_toml(table("e", '[host."http://{e}".header]', 'X-One = "1"'), "e' s'", "s", headers="e:x-one=1"),
    "a header of nothing": from_toml(table("m", '[host."http://{m}".header]', "X-One = []"), "m'", "m"),
    "a header with underscores": from_toml(
        table("m", '[host."http://{m}".header]', 'X_Two = "2"'), "m'", "m", headers="m:x_two=2"
    ),
    "a header of the server": from_toml(
        'server = "http://{s}"\n[header]\nX-One = "1"\n' + MUTE, "e' s'", "s", headers="s:x-one=1"
    ),
    "a login in a header": from_toml(
        table("m", '[host."http://{m}".header]', 'authorization = "Basic YQ=="'),
        "m'",
        "m",
        headers="m:authorization=Basic YQ==",
    ),
    "another user agent": from_toml(
        table("m", '[host."http://{m}".header]', 'User-Agent = "custom/1"'),
        "m'",
        "m",
        headers="m:user-agent=custom/1",
        since=(1, 7),
    ),
    "headers that are the protocol's": from_toml(
        table("m", '[host."http://{m}".header]', 'Host = "x"', 'Content-Length = "7"', 'Transfer-Encoding = "x"'), "m'", "m"
    ),
    # Paths
    "a path": from_toml(table("m", path="/proxy"), "m'/proxy/v2", "m"),
    "a path with its version": from_toml(table("m", path="/proxy/v2"), "m'/proxy/v2", "m"),
    "a path of a slash": from_toml(table("m", path="/"), "m'", "m"),
    "a path of many slashes": from_toml(table("m", path="//proxy///a/./b/"), "m'/proxy/a/b/v2", "m"),
    "a path that goes back": from_toml(table("m", path="/proxy/../a"), "", theirs=got("m'/a/v2", "m")),
    "override_path": from_toml(table("m", "override_path = true", path="/v2/proxy"), "m'/v2/proxy", "m"),
    "override_path without a path": from_toml(table("m", "override_path = true"), "m'/", "m"),
    "override_path of the server": from_toml('server = "http://{s}/x"\noverride_path = true\n' + MUTE, "e' s'/x", "s"),
    # dial_timeout
    "dial_timeout": from_toml(table("m", 'dial_timeout = "1m30.5s"'), "m'", "m"),
    "dial_timeout of nothing": from_toml(table("m", 'dial_timeout = ""'), "m'", "m"),
    "dial_timeout of a host that takes nobody": from_toml(
        table("full", 'dial_timeout = "200ms"') + table("m"), "m'", "m", since=(2, 1)
    ),
    # How a file is written
    "a host without scheme is https": from_toml('[host."{t}"]\nca = "../../t.crt"\n', "t'", "t"),
    "an unknown key": from_toml(table("m", 'future_thing = "x"'), "m'", "m"),
    "a host with a user": from_toml('[host."http://u:p@{m}"]\n', "", theirs=got("m'", "m")),
    "a host with a query": from_toml(table("m", path="/?a=b"), "", theirs=got("m'", "m")),
    "hosts inline": from_toml('[host]\n"http://{m}" = {{}}\n', "m'", "m", theirs=got("s'", "s"), since=(2, 0)),
}


# The name's own host, which is asked when a file names no server: by a proxy, so that it needs no address.
OF_R: Final = got("r", "r")
CA: Final = "=r.crt"
DIRECTORIES: dict[str, Case] = {
    "nothing": Case({}, NOT),
    "an authority": Case({"r.example/a.crt": CA}, OF_R),
    "an authority of another ending": Case({"r.example/a.pem": CA}, NOT),
    "an authority of another host": Case({"other.example/a.crt": CA}, NOT),
    "an authority of _default": Case({"_default/a.crt": CA}, OF_R),
    "a directory of its own beside _default": Case({"_default/a.crt": CA, "r.example/notes": "x"}, NOT),
    "hosts.toml of _default": Case({"_default/hosts.toml": table("m")}, got("m'", "m")),
    "a directory of its own beside hosts.toml of _default": Case(
        {"_default/hosts.toml": table("m"), "r.example/a.crt": CA}, OF_R
    ),
    "an empty file beside an authority": Case({"r.example/hosts.toml": "", "r.example/a.crt": CA}, OF_R),
    "an authority for the server without a name": Case(
        {"r.example/hosts.toml": 'ca = "../../r.crt"\n' + MUTE}, got("e' r", "r")
    ),
    "the server by its name": Case(
        {"r.example/hosts.toml": 'server = "https://r.example"\nca = "../../r.crt"\n' + MUTE}, got("e' r", "r")
    ),
    "skip_verify for the server without a name": Case(
        {"r.example/hosts.toml": "skip_verify = true\n" + MUTE}, got("e' r", "r")
    ),
    "a path and capabilities without a server": Case(
        {"r.example/hosts.toml": 'ca = "../../r.crt"\noverride_path = true\ncapabilities = ["push"]\n' + MUTE}, got("e' r", "r")
    ),
    "an authority beside hosts.toml": Case(
        {"r.example/hosts.toml": MUTE, "r.example/a.crt": CA}, got("e' r", "r"), theirs=got("e'")
    ),
    # containerd logs what is wrong, and does as without the file
    "no TOML": Case({"r.example/hosts.toml": "[host", "r.example/a.crt": CA}, NOT, theirs=OF_R),
    "a wrong type": Case({"r.example/hosts.toml": table("m", "ca = 7"), "r.example/a.crt": CA}, NOT, theirs=OF_R),
    "an unknown capability": Case(
        {"r.example/hosts.toml": table("m", 'capabilities = ["fly"]'), "r.example/a.crt": CA}, NOT, theirs=OF_R
    ),
    "a wrong duration": Case(
        {"r.example/hosts.toml": table("m", 'dial_timeout = "soon"'), "r.example/a.crt": CA}, NOT, theirs=OF_R, since=(2, 1)
    ),
    "a misspelt key": Case({"r.example/hosts.toml": table("m", 'capabilites = ["pull"]')}, NOT, theirs=got("m'", "m")),
    # Client certificates
    "no pair": Case({"k.example/a.crt": "=k.crt"}, NOT, domain="k.example"),
    "a pair": Case(
        {"k.example/a.crt": "=k.crt", "k.example/b.cert": "=me.crt", "k.example/b.key": "=me.key"},
        got("k", "k"),
        domain="k.example",
    ),
    "a certificate with its key inside": Case(
        {"k.example/a.crt": "=k.crt", "k.example/b.cert": "=me.pem"}, got("k", "k"), domain="k.example"
    ),
    "a pair of _default": Case(
        {"_default/a.crt": "=k.crt", "_default/b.cert": "=me.crt", "_default/b.key": "=me.key"},
        got("k", "k"),
        domain="k.example",
    ),
    "a certificate without its key": Case(
        {"k.example/a.crt": "=k.crt", "k.example/b.cert": "=me.crt"}, NOT, domain="k.example"
    ),
    "a key without its certificate": Case({"r.example/a.crt": CA, "r.example/b.key": "=me.key"}, NOT, theirs=OF_R),
    # How the directory of a host with a port is called
    "port with underscores": Case({"r.example_5000_/hosts.toml": table("m")}, got("m'", "m"), domain="r.example:5000"),
    "port with a colon": Case({"r.example:5000/hosts.toml": table("m")}, got("m'", "m"), domain="r.example:5000"),
    "port with underscores first": Case(
        {"r.example_5000_/hosts.toml": table("m"), "r.example:5000/hosts.toml": table("n")},
        got("m'", "m"),
        domain="r.example:5000",
    ),
    "port with underscores alone counts": Case(
        {"r.example_5000_/notes": "x", "r.example:5000/hosts.toml": table("n"), "_default/hosts.toml": table("m")},
        NOT,
        domain="r.example:5000",
    ),
    "port of another": Case(
        {"r.example/hosts.toml": table("m"), "_default/hosts.toml": table("n")}, got("n'", "n"), domain="r.example:5000"
    ),
    # This node's own addresses
    "this node by plain HTTP": Case({"{m}/hosts.toml": MUTE}, got("e' m", "m"), domain="{m}"),
    "this node by TLS": Case({"{t}/hosts.toml": MUTE}, got("e' t", "t"), domain="{t}", since=(2, 0)),
    "this node by its name": Case({"localhost_{m_port}_/hosts.toml": MUTE}, got("e' m", "m"), domain="localhost:{m_port}"),
    "this node without a file": Case({}, NOT, domain="{m}", theirs=got("m", "m")),
    "this node with certificates alone": Case({"{m}/a.crt": CA}, NOT, domain="{m}", theirs=got("m", "m")),
}
SIX: dict[str, Case] = {
    "a host": from_toml(table("six"), "m'", "m", since=(1, 7)),
    "a name, with underscores": Case({"[::1]_{six_port}_/hosts.toml": MUTE}, got("e' m", "m"), domain="{six}"),
    "a name, with a colon": Case({"{six}/hosts.toml": MUTE}, got("e' m", "m"), domain="{six}"),
}


@pytest.fixture(scope="module")
def containerd() -> Iterator[Containerd]:
    with running_containerd() as running:
        yield running


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with run_servers(tmp_path_factory.mktemp("servers")) as running:
        yield running


@pytest.fixture
def put(containerd: Containerd, servers: Servers, tmp_path: Path) -> Callable[[Case], None]:
    """The same question to both."""

    def ask(case: Case) -> None:
        certs_d = write(case.files, servers, tmp_path)
        domain = case.domain.format(**names(servers, tmp_path))
        servers.fill(make_image([[file("a", f"{tmp_path.name} {case}")]]))  # containerd asks for nothing that it has
        ours = outcome(servers, lambda: we_fetch(servers, lambda: Hosts(directories=[certs_d]), domain))
        assert ours == case.expected
        if containerd_version() >= case.since:
            theirs = outcome(servers, lambda: ctr_fetches(containerd, servers, domain, certs_d))
            assert theirs == (case.theirs or case.expected)

    return ask


def names(servers: Servers, here: Path) -> dict[str, str]:
    ports = {f"{label}_port": host.rpartition(":")[2] for label, host in servers.hosts.items()}
    return {**servers.hosts, **ports, "here": str(here)}


def write(files: Mapping[str, str], servers: Servers, here: Path) -> Path:
    """The files below certs.d, with all certificates of the servers two directories above each hosts.toml."""
    for certificate in servers.directory.iterdir():
        shutil.copy(certificate, here)
    for name, text in files.items():
        path = here / "certs.d" / name.format(**names(servers, here))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((here / text[1:]).read_text() if text.startswith("=") else text.format(**names(servers, here)))
    return here / "certs.d"


@pytest.mark.parametrize("label", CASES)
def test_the_same_file_leads_to_the_same_servers(put: Callable[[Case], None], label: str) -> None:
    put(CASES[label])


@pytest.mark.parametrize("label", DIRECTORIES)
def test_the_same_directories_lead_to_the_same_servers(put: Callable[[Case], None], label: str) -> None:
    put(DIRECTORIES[label])


def sends_to(host: str, path: str) -> Callable[[Handler, Reply], Reply]:
    """A redirect to the same content of another server."""

    def fault(handler: Handler, reply: Reply) -> Reply:
        return Reply(307, {"Location": f"https://{host}{handler.path.removeprefix(path)}", "Content-Length": "0"})

    return fault


def test_whom_a_host_redirects_to_is_trusted_by_its_authorities(put: Callable[[Case], None], servers: Servers) -> None:
    servers.registries["t"].break_at("/moved/", sends_to("r.example", "/moved"))
    text = table("t", 'ca = ["../../t.crt", "../../r.crt"]', **TLS, path="/moved")
    put(from_toml(text, "t'/moved/v2 r'", "r", domain="q.example"))
    text = table("t", 'ca = "../../t.crt"', **TLS, path="/moved")
    put(from_toml(text, "t'/moved/v2 s'", "s", domain="q.example"))


def test_our_certificate_is_not_for_whom_a_host_redirects_to(put: Callable[[Case], None], servers: Servers) -> None:
    """containerd shows it there too."""
    servers.registries["t"].break_at("/gone/", sends_to(servers.hosts["c"], "/gone"))
    lines = ['ca = ["../../t.crt", "../../c.crt"]', 'client = "../../me.pem"']
    put(from_toml(table("t", *lines, **TLS, path="/gone"), "t'/gone/v2 s'", "s", theirs=got("t'/gone/v2 c'", "c")))


def test_the_token_server_of_a_host_is_trusted_by_its_authorities(put: Callable[[Case], None], servers: Servers) -> None:
    token = b'{"token": "t0"}'

    def guard(handler: Handler, reply: Reply) -> Reply:
        if handler.headers.get("Authorization") == "Bearer t0":
            return reply
        return Reply(401, {"WWW-Authenticate": 'Bearer realm="https://r.example/token",service="x"', "Content-Length": "0"})

    servers.registries["t"].break_at("/guarded/", guard)
    servers.registries["r"].break_at("/token", lambda handler, reply: Reply(200, {"Content-Length": str(len(token))}, token))
    text = table("t", 'ca = ["../../t.crt", "../../r.crt"]', **TLS, path="/guarded")
    put(from_toml(text, "t'/guarded/v2", "t", headers="t:authorization=Bearer t0", domain="q.example"))


@pytest.mark.parametrize("label", SIX)
def test_the_same_holds_for_addresses_of_ipv6(put: Callable[[Case], None], servers: Servers, label: str) -> None:
    if not servers.hosts["six"]:
        pytest.skip("this node has no IPv6")
    put(SIX[label])


# Whom a push goes to. containerd takes a host without `capabilities` for one of them; we do not move a push unless told to.
PUSHES: Final = {
    "hosts without push": (table("e", 'capabilities = ["pull", "resolve"]'), "s", "s"),
    "a host with push": (MUTE_PULL + table("m", 'capabilities = ["push"]') + table("n", 'capabilities = ["push"]'), "m", "m"),
    "a host that says nothing": (table("m"), "s", "m"),
    "nobody": ('server = "http://{s}"\ncapabilities = ["pull"]\n' + MUTE_PULL, "", ""),
    "a server with push alone": ('server = "http://{s}"\ncapabilities = ["push"]\n' + MUTE_PULL, "s", "s"),
}


@pytest.mark.parametrize("label", PUSHES)
def test_a_push_goes_where_the_file_says(containerd: Containerd, servers: Servers, tmp_path: Path, label: str) -> None:
    text, expected, theirs = PUSHES[label]
    image = make_image([[file("a", tmp_path.name)]])
    servers.fill(image)
    fetching = write({"r.example/hosts.toml": 'server = "http://{s}"\n' + MUTE}, servers, tmp_path)
    assert ctr_fetches(containerd, servers, "r.example", fetching)
    certs_d = write(from_toml(text, "").files, servers, tmp_path)
    layer = image.layers[0]
    assert asked(servers, lambda: we_push(servers, lambda: Hosts(directories=[certs_d]), "r.example", layer)) == expected
    assert asked(servers, lambda: ctr_pushes(containerd, servers, "r.example", certs_d, layer)) == theirs


def test_registries_conf_comes_before_hosts_toml(servers: Servers, tmp_path: Path) -> None:
    """A table decides alone for its names; what it blocks is not asked as a host of the file either."""
    servers.fill(make_image([[file("a", tmp_path.name)]]))
    directories = [write({"r.example/hosts.toml": 'server = "http://{s}"\n' + table("m")}, servers, tmp_path)]
    conf = tmp_path / "registries.conf"

    def asked_by(text: str) -> Outcome:
        conf.write_text(text.format(**servers.hosts))
        return outcome(servers, lambda: we_fetch(servers, lambda: Hosts.load(conf, directories=directories), "r.example"))

    assert asked_by("") == got("m'", "m")
    assert asked_by('[[registry]]\nprefix = "r.example/team"\nlocation = "{n}/team"\ninsecure = true\n') == got("n", "n")
    assert asked_by('[[registry]]\nprefix = "r.example/other"\nlocation = "{n}/other"\n') == got("m'", "m")
    assert asked_by('[[registry]]\nprefix = "r.example"\nblocked = true\n') == NOT
    assert asked_by('[[registry]]\nprefix = "{m}"\nblocked = true\n') == got("s'", "s")
    blocked = '[[registry]]\nprefix = "{m}"\nblocked = true\n[[registry]]\nprefix = "{s}"\nblocked = true\n'
    assert asked_by(blocked) == NOT
