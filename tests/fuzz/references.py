"""Coverage-guided fuzzing of the grammar of image references and digests.

    python3 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris msgspec
    mkdir -p /tmp/corpus && PYTHONPATH=src /tmp/fuzz/bin/python tests/fuzz/references.py -max_total_time=300 /tmp/corpus

What must hold: nothing but `Invalid`, and soon; what is parsed is parsed again to the same, in full and in short; nothing in it
could mean something else in a URL or a path.
"""

import re
import sys
import time

import atheris

with atheris.instrument_imports(include=["criollo.oci.reference", "criollo.oci.digest"]):
    from criollo.oci.digest import Digest
    from criollo.oci.reference import Reference, is_short
from criollo.errors import Invalid

WORDS = [
    "docker.io",
    "index.docker.io",
    "localhost",
    "library",
    "/",
    ":",
    "@",
    "sha256:",
    "sha512:",
    "a" * 64,
    "0" * 128,
    "latest",
]
WORDS += [
    "[::1]",
    ".",
    "-",
    "_",
    "__",
    "--",
    "a-",
    "..",
    "ä",
    "\u0660",
    "\n",
    "\0",
    "%",
    "5000",
    "65536",
    "A",
    "b",
    "Example.COM",
    " ",
]
SAFE = re.compile(r"[A-Za-z0-9.:/@_\[\]-]+")
LIMIT_S = 0.2


def text(source: atheris.FuzzedDataProvider) -> str:
    if source.ConsumeIntInRange(0, 4) == 0:
        return str(source.ConsumeUnicode(300))
    words = (source.PickValueInList(WORDS) for _ in range(source.ConsumeIntInRange(1, 14)))
    return "".join(word * (source.ConsumeIntInRange(1, 300) if source.ConsumeIntInRange(0, 15) == 0 else 1) for word in words)


def one(octets: bytes) -> None:
    asked = text(atheris.FuzzedDataProvider(octets))
    begin = time.thread_time()
    try:
        is_short(asked)
        found = Reference.parse(asked)
    except Invalid:
        return
    finally:
        assert time.thread_time() - begin < LIMIT_S
    assert Reference.parse(str(found)) == found
    assert SAFE.fullmatch(str(found))
    assert not {"", ".", ".."} & set(found.path.split("/"))
    assert found.domain == found.domain.lower()
    assert found.tag or found.digest
    if found.digest:
        assert Reference.parse(str(found.with_digest(Digest(found.digest)))).digest == found.digest


atheris.Setup(sys.argv, one)
atheris.Fuzz()
