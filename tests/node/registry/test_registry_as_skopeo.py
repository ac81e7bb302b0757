"""registries.conf means here what it means to skopeo: the same file, the same name, the same questions to the same servers.
Short names are compared with podman.

Servers are on addresses 127.x.y.z of a random network: names without a port need port 80 of a host of their own.
"""

import http.server
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from support.as_skopeo import skopeo_gets, we_get
from support.serving import Quiet, serving

from criollo.errors import CriolloError
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.registry.hosts import Hosts

pytestmark = pytest.mark.node

CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:" + "0" * 64, "size": 2}
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": MEDIA_TYPE, "config": CONFIG, "layers": []}).encode()
DIGEST = Digest.of(MANIFEST)


class Verdict(NamedTuple):
    """Whether a manifest was found, and which were asked for: host and path, in order."""

    found: bool
    asked: list[str]


class Node:
    """Three hosts A, B and C at ports 80 and 5000; `have` are the repositories that they have, as host/path."""

    def __init__(self, root: Path, hosts: list[str]) -> None:
        self.root, self.hosts = root, dict(zip("ABC", hosts, strict=True))
        self.have: set[str] = set()
        self.asked: list[str] = []

    def written(self, text: str) -> str:
        """A text with the names of hosts in place of $A, $B, $C, and their network as $N."""
        for name, host in self.hosts.items():
            text = text.replace(f"${name}", host)
        return text.replace("$N", next(iter(self.hosts.values())).partition(".")[2])

    def files(self, conf: str, drop_in: str = "") -> Path:
        path = self.root / "registries.conf"
        path.write_text(self.written(conf))
        directory = self.root / ".config/containers/registries.conf.d"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "10-test.conf").write_text(self.written(drop_in))
        return path

    def theirs(self, conf: Path, name: str) -> Verdict:
        self.asked.clear()
        env = {"PATH": os.environ["PATH"], "HOME": str(self.root)}
        return Verdict(skopeo_gets(name, env, conf=conf), list(self.asked))

    def ours(self, conf: Path, name: str) -> Verdict:
        self.asked.clear()

        def wanted() -> tuple[Hosts, Reference]:
            hosts = Hosts.load(conf, [self.root / ".config/containers/registries.conf.d"])
            return hosts, hosts.candidates(name)[0].reference

        return Verdict(we_get(wanted), list(self.asked))


def handler(node: Node) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(Quiet):
        def do_GET(self) -> None:
            if self.path == "/v2/":  # skopeo asks this first, we do not
                self.answer(200, b"{}")
                return
            repository = self.path.removeprefix("/v2/").partition("/manifests/")[0]
            place = f"{self.headers['Host']}/{repository}"
            node.asked.append(f"{self.headers['Host']}{self.path}")
            has = place in node.have
            body = MANIFEST if has else b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"x"}]}'
            self.answer(200 if has else 404, body, {"Content-Type": MEDIA_TYPE})

    return Handler


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    for _ in range(5):
        net = f"127.{random.randint(100, 250)}.{random.randint(1, 250)}"
        made = Node(tmp_path_factory.mktemp("skopeo"), [f"{net}.{number}" for number in (11, 12, 13)])
        with ExitStack() as stack:
            try:
                for host in made.hosts.values():
                    for port in (80, 5000):
                        stack.enter_context(serving(handler(made), (host, port)))
            except OSError:  # somebody listens at such a port of all addresses, or at this one
                continue
            yield made
            return
    pytest.fail("ports 80 and 5000 of addresses of this host are all taken")


IN = "insecure = true\n"
A = f'[[registry]]\nlocation = "$A"\n{IN}'
B_MIRROR = f'[[registry.mirror]]\nlocation = "$B"\n{IN}'
C_MIRROR = f'[[registry.mirror]]\nlocation = "$C/m"\n{IN}'
FORMAT_1 = '[registries.insecure]\nregistries = ["$A"]\n'

CASES = {
    # label: registries.conf, name, who has it[, drop-in]
    "a table for a host": (A, "$A/app:1", "$A/app"),
    "nobody has it": (A, "$A/app:1", ""),
    "a table for another name": (A.replace("$A", "$A/team"), "$A/app:1", "$A/app"),
    "a prefix is whole words": (A.replace("$A", "$A/ap"), "$A/app:1", "$A/app"),
    "a prefix without a port": (A, "$A:5000/app:1", "$A:5000/app"),
    "a prefix with a port": (A.replace("$A", "$A:5000"), "$A:5000/app:1", "$A:5000/app"),
    "a prefix with another port": (A.replace("$A", "$A:5000"), "$A/app:1", "$A/app"),
    "a location takes the port along": (f'[[registry]]\nprefix = "$A"\nlocation = "$B"\n{IN}', "$A:5000/app:1", "$B:5000/app"),
    "a location for a namespace": (f'[[registry]]\nprefix = "$A/a"\nlocation = "$B/b/"\n{IN}', "$A/a/app:1", "$B/b/app"),
    "a location for a repository": (f'[[registry]]\nprefix = "$A/a/x"\nlocation = "$B/y"\n{IN}', "$A/a/x:1", "$B/y"),
    "a host as location": (f'[[registry]]\nprefix = "$A/app"\nlocation = "$B"\n{IN}', "$A/app:1", "$B"),
    "a wildcard": (f'[[registry]]\nprefix = "*.$N"\n{IN}', "$A/app:1", "$A/app"),
    "a wildcard and a port": (f'[[registry]]\nprefix = "*.$N"\n{IN}', "$A:5000/app:1", "$A:5000/app"),
    "a wildcard with location": (f'[[registry]]\nprefix = "*.$N"\nlocation = "$B/x"\n{IN}', "$A/app:1", "$B/x/app"),
    "a wildcard with mirror": (f'[[registry]]\nprefix = "*.$N"\n{IN}' + B_MIRROR, "$A:5000/app:1", "$B:5000/app"),
    "a wildcard with a path": (f'[[registry]]\nprefix = "*.$N/app"\n{IN}', "$A/app:1", "$A/app"),
    "a wildcard with a port": (f'[[registry]]\nprefix = "*.$N:5000"\n{IN}', "$A:5000/app:1", "$A:5000/app"),
    "a wildcard blocks each port": (A + '[[registry]]\nprefix = "*.$N"\nblocked = true\n', "$A:5000/app:1", "$A:5000/app"),
    "a longer prefix than the wildcard": (A + '[[registry]]\nprefix = "*.$N"\nblocked = true\n', "$A/app:1", "$A/app"),
    "the longest prefix": (A + f'[[registry]]\nprefix = "$A/a"\nlocation = "$B/b"\n{IN}', "$A/a/app:1", "$A/a/app $B/b/app"),
    "mirrors first": (A + B_MIRROR + C_MIRROR, "$A/app:1", "$A/app $C/m/app"),
    "mirrors that have nothing": (A + B_MIRROR + C_MIRROR, "$A/app:1", "$A/app"),
    "mirrors and no registry": (A + B_MIRROR + C_MIRROR, "$A/app:1", ""),
    "a mirror for digests, by tag": (A + B_MIRROR + 'pull-from-mirror = "digest-only"\n', "$A/app:1", "$A/app $B/app"),
    "a mirror for digests, by digest": (
        A + B_MIRROR + 'pull-from-mirror = "digest-only"\n', f"$A/app@{DIGEST}", "$A/app $B/app"
    ),
    "a mirror for tags, by tag": (A + B_MIRROR + 'pull-from-mirror = "tag-only"\n', "$A/app:1", "$A/app $B/app"),
    "a mirror for tags, by digest": (A + B_MIRROR + 'pull-from-mirror = "tag-only"\n', f"$A/app@{DIGEST}", "$A/app $B/app"),
    "a mirror for everything": (A + B_MIRROR + 'pull-from-mirror = "all"\n', f"$A/app@{DIGEST}", "$A/app $B/app"),
    "a mirror for what is nothing": (A + B_MIRROR + 'pull-from-mirror = "never"\n', "$A/app:1", "$A/app $B/app"),
    "mirrors restricted twice": (
        A + "mirror-by-digest-only = true\n" + B_MIRROR + 'pull-from-mirror = "all"\n', "$A/app:1", "$A/app $B/app"
    ),
    "a registry as a mirror for digests": (A + 'pull-from-mirror = "digest-only"\n', "$A/app:1", "$A/app"),
    "digests alone, by tag": (A + "mirror-by-digest-only = true\n" + B_MIRROR, "$A/app:1", "$A/app $B/app"),
    "digests alone, by digest": (A + "mirror-by-digest-only = true\n" + B_MIRROR, f"$A/app@{DIGEST}", "$A/app $B/app"),
    "a mirror with a scheme": (A + B_MIRROR.replace("$B", "https://$B"), "$A/app:1", "$A/app"),
    "a mirror without a location": (A + "[[registry.mirror]]\ninsecure = true\n", "$A/app:1", "$A/app"),
    "blocked": (A + "blocked = true\n", "$A/app:1", "$A/app"),
    "blocked, and not its mirrors": (A + "blocked = true\n" + B_MIRROR, "$A/app:1", "$A/app $B/app"),
    "blocked, and mirrors have nothing": (A + "blocked = true\n" + B_MIRROR + C_MIRROR, "$A/app:1", "$A/app"),
    "a blocked mirror": (
        A + B_MIRROR + f'[[registry]]\nlocation = "$B"\n{IN}blocked = true\n', "$A/app:1", "$A/app $B/app"
    ),
    "a blocked location": (
        f'[[registry]]\nprefix = "$A"\nlocation = "$B/y"\n{IN}[[registry]]\nlocation = "$B"\n{IN}blocked = true\n',
        "$A/app:1", "$A/app $B/y/app"
    ),
    "secure": ('[[registry]]\nlocation = "$A"\n', "$A/app:1", "$A/app"),
    "a secure mirror of an insecure registry": (A + B_MIRROR.replace("true", "false"), "$A/app:1", "$A/app $B/app"),
    "tables that disagree": (A + '[[registry]]\nlocation = "$A"\n', "$A/app:1", "$A/app"),
    "tables of two prefixes that disagree": (A + '[[registry]]\nprefix = "$B"\nlocation = "$A"\n', "$A/app:1", "$A/app"),
    "tables of one prefix that agree": (A + A + B_MIRROR, "$A/app:1", "$A/app $B/app"),
    "keys in any case": ('[[Registry]]\nLocation = "$A"\nINSECURE = true\n', "$A/app:1", "$A/app"),
    "blocked in any case": (A + "Blocked = true\n", "$A/app:1", "$A/app"),
    "a key that nobody knows": (A + "unqualified-search = true\n", "$A/app:1", "$A/app"),
    "a top key that nobody knows": ('no-such-key = 1\n' + A, "$A/app:1", "$A/app"),
    "the helper of layer stores": ('additional-layer-store-auth-helper = "/x"\n' + A, "$A/app:1", "$A/app"),
    "a list of search hosts": ('unqualified-search-registries = ["a.example/"]\n' + A, "$A/app:1", "$A/app"),
    "a search host with a path": ('unqualified-search-registries = ["a.example/x"]\n' + A, "$A/app:1", "$A/app"),
    "a search host with a scheme": ('unqualified-search-registries = ["https://a.example"]\n' + A, "$A/app:1", "$A/app"),
    "a mode that does not exist": ('short-name-mode = "strict"\n' + A, "$A/app:1", "$A/app"),
    "an alias of a full name": (A + '[aliases]\n"a.example/x" = "b.example/y"\n', "$A/app:1", "$A/app"),
    "an alias with a tag": (A + '[aliases]\nx = "b.example/y:1"\n', "$A/app:1", "$A/app"),
    "an alias of nothing": (A + '[aliases]\nx = ""\n', "$A/app:1", "$A/app"),
    "a table of nothing": (A + "[[registry]]\n", "$A/app:1", "$A/app"),
    "a location with a scheme": (A.replace("$A", "http://$A"), "$A/app:1", "$A/app"),
    "flags that are no flags": (A.replace("true", '"yes"'), "$A/app:1", "$A/app"),
    "no TOML": ("[[registry", "$A/app:1", "$A/app"),
    "format 1": (FORMAT_1, "$A/app:1", "$A/app"),
    "format 1, blocked": (FORMAT_1 + '[registries.block]\nregistries = ["$A"]\n', "$A/app:1", "$A/app"),
    "formats 1 and 2": (FORMAT_1 + '[[registry]]\nlocation = "$B"\n', "$A/app:1", "$A/app"),
    "a drop-in": ("", "$A/app:1", "$A/app", A),
    "a drop-in replaces a table": (A + "blocked = true\n", "$A/app:1", "$A/app", A),
    "a drop-in replaces a table with mirrors": (A + B_MIRROR, "$A/app:1", "$A/app $B/app", A),
    "a drop-in of format 1": (A, "$A/app:1", "$A/app", FORMAT_1),
    "a drop-in after format 1": (FORMAT_1, "$A/app:1", "$B/app", f'[[registry]]\nprefix = "$A"\nlocation = "$B"\n{IN}'),
    "a malformed drop-in": (A, "$A/app:1", "$A/app", "[[registry"),
}  # fmt: skip


@pytest.mark.parametrize("label", CASES)
def test_the_same_file_leads_to_the_same_servers(node: Node, label: str) -> None:
    conf, name, have, *drop_in = CASES[label]
    node.have = set(node.written(have).split())
    path = node.files(conf, *drop_in)
    theirs = node.theirs(path, node.written(name))
    assert node.ours(path, node.written(name)) == theirs


ON_PURPOSE = {
    # label: registries.conf, name, who has it, skopeo finds it, we do
    "a blocked prefix with another location": (
        f'[[registry]]\nprefix = "$A"\nlocation = "$B"\nblocked = true\n{IN}', "$A/app:1", "$B/app", True, False
    ),
    "a prefix alone is its location": (f'[[registry]]\nprefix = "$A"\n{IN}', "$A/app:1", "$A/app", False, True),
    "a prefix with a tag": (
        A + f'[[registry]]\nprefix = "$A/app:1"\nlocation = "$B/app"\n{IN}', "$A/app:1", "$B/app", False, True
    ),
    "a prefix that can match nothing": (A + '[[registry]]\nprefix = "*"\nlocation = "$B"\n', "$A/app:1", "$A/app", True, False),
    "a misspelt key": (A + "bloked = true\n", "$A/app:1", "$A/app", True, False),
}  # fmt: skip


@pytest.mark.parametrize("label", ON_PURPOSE)
def test_where_we_differ_on_purpose(node: Node, label: str) -> None:
    """As docs/registries.md says; when skopeo comes to agree, the page is to be mended."""
    conf, name, have, theirs, ours = ON_PURPOSE[label]
    node.have = set(node.written(have).split())
    path = node.files(conf)
    assert node.theirs(path, node.written(name)).found is theirs
    assert node.ours(path, node.written(name)).found is ours


# Short names: skopeo knows none, podman does ----------------------------------------------------------------------------

TWO = 'unqualified-search-registries = ["$A", "$B"]\n'
ALL = A + A.replace("$A", "$B") + A.replace("$A", "$C")
ALIASES = '[aliases]\nal = "$C/team/al"\n"ns/al" = "$C/ns/other"\ngone = "$C/gone"\n'
SHORT = {
    # label: what stands before the tables, name, what stands after them
    "one registry": ('unqualified-search-registries = ["$A"]\n', "nope", ""),
    "several, permissive": (TWO + 'short-name-mode = "permissive"\n', "nope:1", ""),
    "several, disabled": (TWO + 'short-name-mode = "disabled"\n', "ns/nope:1", ""),
    "several, enforcing": (TWO + 'short-name-mode = "enforcing"\n', "nope", ""),
    "one, enforcing": ('short-name-mode = "enforcing"\nunqualified-search-registries = ["$B"]\n', "nope", ""),
    "no registry": ("unqualified-search-registries = []\n", "nope", ""),
    "an alias": (TWO, "al:3", ALIASES),
    "an alias by digest": (TWO, f"al@{DIGEST}", ALIASES),
    "an alias of a namespace": (TWO, "ns/al", ALIASES),
    "no alias of that namespace": ('unqualified-search-registries = ["$A"]\n', "other/al", ALIASES),
    "a name that is none": (TWO, "UPPER", ""),
}


@pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not here")
@pytest.mark.parametrize("label", SHORT)
def test_short_names_are_what_they_are_to_podman(node: Node, label: str) -> None:
    top, name, tail = SHORT[label]
    node.have = set()
    conf = node.files(top + ALL + tail)
    assert _podman(node, conf, name) == _asked_by_us(conf, name)


def _podman(node: Node, conf: Path, name: str) -> list[str]:
    """Which manifests it asks for, and tells as it fails."""
    node.asked.clear()
    argv = [
        "podman",
        "--root",
        str(node.root / "root"),
        "--runroot",
        str(node.root / "run"),
        "--tmpdir",
        str(node.root / "tmp"),
    ]
    argv += ["--events-backend", "none", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "pull", "-q", name]
    env = {"PATH": os.environ["PATH"], "HOME": str(node.root), "CONTAINERS_REGISTRIES_CONF": str(conf)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=env)
    print("podman:", done.stderr[-600:])
    return list(dict.fromkeys(node.asked))


def _asked_by_us(conf: Path, name: str) -> list[str]:
    try:
        candidates = Hosts.load(conf).candidates(name)
    except CriolloError as error:
        print("ours:", error)
        return []
    refs = [each.reference for each in candidates]
    return [f"{ref.domain}/v2/{ref.path}/manifests/{ref.identifier}" for ref in refs]
