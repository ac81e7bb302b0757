"""Coverage-guided fuzzing of the layer tar parser with its pax records and sparse maps.

    python3 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris msgspec
    mkdir -p /tmp/corpus && PYTHONPATH=src:tests /tmp/fuzz/bin/python tests/fuzz/layers.py -max_total_time=300 /tmp/corpus

What must hold: nothing but `Damaged`; the same entries however the bytes are split; values in range; as much content as an
entry says; sparse maps in order and inside the file; next to nothing held.
"""

import sys

import atheris

with atheris.instrument_imports(include=["criollo.workers.tar", "criollo.workers.pax"]):
    from criollo.workers import pax, tar
from support.tars import END, header, padded, record

from criollo.errors import Damaged

KINDS = [bytes([kind]) for kind in b"0\0001234567xgXLKSVDM"]
KEYS = [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"SCHILY.xattr.user.a", b"hdrcharset"]
KEYS += [b"GNU.sparse." + key for key in (b"major", b"minor", b"name", b"realsize", b"size", b"map", b"offset", b"numbytes")]


def archive(source: atheris.FuzzedDataProvider) -> bytes:
    """Headers with right checksums, mostly, and content that fits their types, mostly."""
    made = b"".join(member(source) for _ in range(source.ConsumeIntInRange(1, 6)))
    made += END if source.ConsumeBool() else b""
    return made[: source.ConsumeIntInRange(0, len(made))] if source.ConsumeIntInRange(0, 8) == 0 else made


def member(source: atheris.FuzzedDataProvider) -> bytes:
    kind, body = source.PickValueInList(KINDS), content(source)
    size = source.ConsumeBytes(12).ljust(12, b"\0") if source.ConsumeIntInRange(0, 9) == 0 else b"%011o\0" % len(body)
    name, link = (source.ConsumeBytes(source.ConsumeIntInRange(0, 12)) for _ in range(2))
    block = bytearray(header(name, kind, size, link=link))
    if kind == b"S":
        for at in range(source.ConsumeIntInRange(0, 4)):
            block[386 + 24 * at : 410 + 24 * at] = b"%011o\0%011o\0" % tuple(source.ConsumeIntListInRange(2, 0, 600))
        block[482:495] = b"%c%011o\0" % (source.ConsumeIntInRange(0, 1), source.ConsumeIntInRange(0, 5000))
    if source.ConsumeIntInRange(0, 3) == 0:
        at, piece = source.ConsumeIntInRange(0, 500), source.ConsumeBytes(12)
        block[at : at + len(piece)] = piece
    if source.ConsumeIntInRange(0, 19):
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + padded(body) + bytes(512 * (source.ConsumeIntInRange(0, 30) == 0))


def content(source: atheris.FuzzedDataProvider) -> bytes:
    match source.ConsumeIntInRange(0, 5):
        case 0:
            return source.ConsumeBytes(source.ConsumeIntInRange(0, 1600))
        case 1 | 2:
            return b"".join(record(source.PickValueInList(KEYS), value(source)) for _ in range(source.ConsumeIntInRange(0, 6)))
        case 3:
            numbers = source.ConsumeIntListInRange(source.ConsumeIntInRange(0, 9), 0, 40)
            return padded(b"".join(b"%d\n" % number for number in numbers)) + source.ConsumeBytes(60)
        case _:
            return b""


def value(source: atheris.FuzzedDataProvider) -> bytes:
    return b"%d" % source.ConsumeIntInRange(0, 3000) if source.ConsumeBool() else source.ConsumeBytes(24)


def read(chunks: list[bytes]) -> list[object]:
    """What the parser makes of these, checked."""
    parser = tar.Parser(max_entries=5, max_records=100)
    seen: list[tuple[tar.Entry, bytearray]] = []
    try:
        for chunk in chunks:
            for event in parser.feed(chunk):
                if isinstance(event, tar.Entry):
                    seen.append((event, bytearray(event.body or b"")))
                else:
                    seen[-1][1].extend(event)
                assert len(parser._held) <= pax.MAX_HEADER_BYTES + 512
        parser.close()
    except Damaged as error:
        return [type(error)]
    for entry, body in seen:
        check(entry, body)
        entry.body = None
    return [(entry, bytes(body)) for entry, body in seen]


def check(entry: tar.Entry, body: bytes) -> None:
    assert len(body) == entry.stored
    assert 0 <= entry.size < 1 << 63
    assert 0 <= entry.mode <= 0o7777
    assert 0 <= entry.uid < (1 << 32) - 1 > entry.gid >= 0
    assert max(len(entry.name), len(entry.link)) <= tar.MAX_PATH_BYTES
    last = 0
    for offset, length in entry.sparse or ():
        assert last <= offset
        last = offset + length
    assert last <= entry.size


def one(octets: bytes) -> None:
    source = atheris.FuzzedDataProvider(octets)
    step, is_raw = source.ConsumeIntInRange(1, 1500), source.ConsumeIntInRange(0, 9) == 0
    made = source.ConsumeBytes(4000) if is_raw else archive(source)
    assert read([made]) == read([made[at : at + step] for at in range(0, len(made), step)])


atheris.Setup(sys.argv, one)
atheris.Fuzz()
