"""Coverage-guided fuzzing of registries.conf and hosts.toml.

    python3 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris msgspec urllib3
    mkdir -p /tmp/corpus && PYTHONPATH=src /tmp/fuzz/bin/python tests/fuzz/registries.py -max_total_time=300 /tmp/corpus

What must hold: a file is read or refused whole by one of our errors, which does not repeat a URL's password; a name leads to
endpoints with a scheme and a host, the registry itself last, or is refused. No misspelt key of a table is swallowed.
"""

import contextlib
import logging
import sys
import tempfile
import tomllib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["criollo.registry"]):
    from criollo.registry import hosts_toml
    from criollo.registry.hosts import Hosts
from criollo.errors import CriolloError, Forbidden, Invalid
from criollo.oci.reference import Reference

FILE = Path(tempfile.mkdtemp()) / "registries.conf"
NAMES = [Reference.parse(name) for name in ("r.example/team/app:1", "x.r.example/a", "busybox")]
SHORT = ("busybox", "a/b:c", "r.example/x")
SECRET = "hunter2"
TABLES = ['[host."https://m.example"]', f'[host."http://u:{SECRET}@h"]', "[[registry]]", "[[registry.mirror]]", "[aliases]"]
TABLES += ['[host."m.example/v2".header]', '[host."x".header]', "[registries.search]", "[host]"]
KEYS = "server host capabilities ca client skip_verify override_path header registry prefix location insecure blocked".split()
KEYS += "mirror pull-from-mirror mirror-by-digest-only aliases unqualified-search-registries short-name-mode registries".split()
KEYS += ["bloked"]
VALUES = [
    '"https://m.example"',
    '"r.example"',
    '"*.example"',
    '"http://[::1]:5000/v2"',
    f'"http://u:{SECRET}@h"',
    '["pull"]',
    "[]",
]
VALUES += [
    "true",
    "false",
    "1",
    "1.5",
    "{}",
    '[["a","b"]]',
    "[{}]",
    '"digest-only"',
    '"enforcing"',
    '"r.example/team"',
    '"a/b:c"',
]
VALUES += [
    "1979-05-27",
    '[{location="m.example"}]',
    '{X-A="b"}',
    '"../x"',
    '"https://h:99999"',
    '"\\u0000"',
    '["r.example"]',
    '""',
]


def line(source: atheris.FuzzedDataProvider) -> str:
    match source.ConsumeIntInRange(0, 9):
        case 0 | 1 | 2:
            return str(source.PickValueInList(TABLES))
        case 3:
            return str(source.ConsumeUnicodeNoSurrogates(20))
        case 4:
            return f'"{source.ConsumeUnicodeNoSurrogates(6)}" = "{source.ConsumeUnicodeNoSurrogates(12)}"'
    return f"{source.PickValueInList(KEYS)} = {source.PickValueInList(VALUES)}"


def one(octets: bytes) -> None:
    source = atheris.FuzzedDataProvider(octets)
    is_raw = source.ConsumeIntInRange(0, 14) == 0
    lines = "\n".join(line(source) for _ in range(source.ConsumeIntInRange(1, 9)))
    raw = source.ConsumeBytes(300) if is_raw else lines.encode()
    said = ""
    try:
        found = hosts_toml.parse(raw, path=Path("/certs.d/r.example/hosts.toml"), domain="r.example")
    except Invalid as error:
        said = str(error)
    else:
        for capability in (hosts_toml.PULL, hosts_toml.RESOLVE, hosts_toml.PUSH):
            with contextlib.suppress(Forbidden):
                check(found.endpoints(NAMES[0], capability=capability))
    assert SECRET not in said
    FILE.write_bytes(raw)
    with contextlib.suppress(CriolloError):
        hosts = Hosts.load(FILE)
        assert not any("bloked" in table for table in tomllib.loads(raw.decode()).get("registry", []))
        for name in NAMES:
            with contextlib.suppress(CriolloError):
                check(hosts.endpoints(name))
        for short in SHORT:
            with contextlib.suppress(CriolloError):
                assert hosts.candidates(short)


def check(endpoints: list[hosts_toml.Endpoint]) -> None:
    assert endpoints
    assert not endpoints[-1].is_mirror
    for each in endpoints:
        assert set(each.schemes) <= {"https", "http"}
        assert each.api_host
        assert "@" not in each.api_host


logging.disable(logging.CRITICAL)
atheris.Setup(sys.argv, one)
atheris.Fuzz()
