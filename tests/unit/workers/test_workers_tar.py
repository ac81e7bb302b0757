"""workers.tar: what real archives say, in any split, and every hostile header as one typed error."""

import contextlib
import io
import tarfile  # noqa: TID251  # what ours is compared with
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tars import END, header, padded, pax

from criollo.errors import Damaged
from criollo.workers.tar import DIRECTORY, FILE, LINK, SYMLINK, Entry, Parser

Seen = list[tuple[object, ...]]


def read(chunks: Iterable[bytes], **limits: int) -> Seen:
    """Entries as tuples, with all their content."""
    parser = Parser(**limits)
    seen: list[tuple[Entry, bytearray]] = []
    for chunk in chunks:
        for event in parser.feed(chunk):
            if isinstance(event, Entry):
                seen.append((event, bytearray(event.body or b"")))
            else:
                seen[-1][1].extend(event)
    parser.close()
    return [
        (e.name, e.kind, e.mode, e.uid, e.gid, e.size, e.mtime_ns, e.link, e.major, e.minor, e.xattrs, e.sparse, bytes(content))
        for e, content in seen
    ]


def names(archive: bytes) -> list[object]:
    return [each[0] for each in read([archive])]


@st.composite
def members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    name = draw(st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=180))
    info = tarfile.TarInfo(name.strip("/") or "x")
    info.type = draw(st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE]))
    info.mode = draw(st.integers(0, 0o7777))
    info.uid, info.gid = draw(st.integers(0, 2**32 - 2)), draw(st.integers(0, 2**32 - 2))
    info.mtime = draw(st.integers(-(2**33), 2**34))
    content = b""
    if info.type == tarfile.REGTYPE:
        content = draw(st.binary(max_size=1500))
        info.size = len(content)
    elif info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname = draw(
            st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=180)
        )
    elif info.type == tarfile.CHRTYPE:
        info.devmajor, info.devminor = draw(st.integers(0, 4095)), draw(st.integers(0, 1 << 20))
    return info, content


def packed(entries: list[tuple[tarfile.TarInfo, bytes]], form: int) -> bytes:
    room = io.BytesIO()
    with tarfile.open(fileobj=room, mode="w", format=form, errors="surrogateescape") as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return room.getvalue()


def expected(info: tarfile.TarInfo, content: bytes) -> tuple[object, ...]:
    name = info.name.encode() + (b"/" if info.isdir() else b"")
    devices = (info.devmajor, info.devminor) if info.ischr() else (0, 0)
    link = info.linkname.encode()
    return (name, info.type, info.mode, info.uid, info.gid, info.size, info.mtime * 10**9, link, *devices, (), None, content)


@given(st.lists(members(), max_size=6), st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
def test_entries_are_what_was_packed(entries: list[tuple[tarfile.TarInfo, bytes]], form: int) -> None:
    assert read([packed(entries, form)]) == [expected(*each) for each in entries]


@given(st.lists(members(), min_size=1, max_size=4), st.data())
def test_any_split_gives_the_same(entries: list[tuple[tarfile.TarInfo, bytes]], data: st.DataObject) -> None:
    archive = packed(entries, tarfile.PAX_FORMAT)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(archive)), max_size=20)))
    chunks = [archive[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(archive)], strict=True)]
    assert read(chunks) == read([archive])


def test_byte_by_byte_gives_the_same() -> None:
    entry = tarfile.TarInfo("n" * 150)
    entry.size = 700
    archive = packed([(entry, b"x" * 700)], tarfile.GNU_FORMAT)
    assert read(archive[at : at + 1] for at in range(len(archive))) == read([archive])


@settings(max_examples=300)
@given(st.lists(members(), min_size=1, max_size=3), st.data())
def test_changed_bytes_give_entries_or_damaged(entries: list[tuple[tarfile.TarInfo, bytes]], data: st.DataObject) -> None:
    archive = bytearray(packed(entries, tarfile.PAX_FORMAT))
    for at in data.draw(st.lists(st.integers(0, len(archive) - 1), min_size=1, max_size=5)):
        archive[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Damaged):
        read([bytes(archive)])


@given(st.binary(max_size=3000))
def test_random_bytes_give_nothing_or_damaged(junk: bytes) -> None:
    with contextlib.suppress(Damaged):
        read([junk])


def test_cut_archive_is_damaged_unless_only_padding_is_missing() -> None:
    whole = header(size=b"%011o\0" % 700) + padded(b"y" * 700)
    for length in range(1, 512 + 700):
        with pytest.raises(Damaged):
            read([whole[:length]])
    for length in range(512 + 700, len(whole) + 1):
        assert len(read([whole[:length]])) == 1


def test_nothing_is_an_empty_layer() -> None:
    assert read([b""]) == []
    assert read([END]) == []
    assert read([bytes(512)]) == []
    assert read([bytes(1 << 20)]) == []


def test_bytes_after_the_end_are_ignored() -> None:
    assert names(header() + END + b"anything" * 1000) == [b"f"]


@pytest.mark.parametrize(
    ("archive", "word"),
    [
        (header()[:100] + b"9" + header()[101:], "checksum"),
        (header(size=b"\xff" * 12), "negative"),
        (header(size=b"\x80" + b"\xff" * 11), "out of range"),
        (header(size=b"1_0        \0"), "octal"),
        (header(size=b"-1         \0"), "octal"),
        (header(size=b"00000000009\0"), "octal"),
        (header(size=b"7\xd9\xa1".ljust(12, b"\0")), "octal"),
        (header(uid=b"\xff" * 8), "negative"),
        (header(kind=b"3", major=b"\xff" * 8), "negative"),
        (header(kind=b"M"), "type"),
        (header(kind=b"\xfe"), "type"),
        (bytes(512) + header(), "zeros"),
        (pax((b"uid", b"4294967295")) + header(), "owner"),
        (pax((b"gid", b"-1")) + header(), "gid"),
        (pax((b"size", b"-1")) + header(), "size"),
        (pax((b"size", b"9" * 25)) + header(), "size"),
        (pax((b"mtime", b"nan")) + header(), "time"),
        (pax((b"mtime", b"1e5")) + header(), "time"),
        (pax((b"path", b"a\0b")) + header(), "NUL"),
        (pax((b"path", b"p" * 4097)) + header(), "4096"),
        (header(kind=b"x", size=b"%011o\0" % 5) + padded(b"0 a=b"), "record"),
        (header(kind=b"x", size=b"%011o\0" % 8) + padded(b"99 a=bc\n"), "record"),
        (header(kind=b"x", size=b"%011o\0" % 8) + padded(b"8 a bcd\n"), "key"),
        (header(kind=b"x", size=b"%011o\0" % 8) + padded(b"\xd9\xa8 abcd\n"), "length"),
        (header(kind=b"x", size=b"%011o\0" % (1 << 21)), "limit"),
        (header(kind=b"L", size=b"%011o\0" % (1 << 21)), "limit"),
        (pax((b"path", b"x")), "extension"),
        (header(kind=b"L", size=b"%011o\0" % 5000) + padded(b"l" * 5000) + header(), "4096"),
    ],
)
def test_hostile_headers_are_damaged(archive: bytes, word: str) -> None:
    with pytest.raises(Damaged, match=word):
        read([archive])


def test_a_negative_time_is_not_taken_for_a_size_that_reads_the_same() -> None:
    field = (-512).to_bytes(12, "big", signed=True)
    [seen] = read([header(mtime=field), END])
    assert seen[6] == -512 * 10**9
    with pytest.raises(Damaged, match="its size is negative"):
        read([header(mtime=field), header(size=field), END])


@pytest.mark.parametrize("shift", range(0, 1537, 256))
def test_padding_that_the_next_chunk_brings_is_passed_over(shift: int) -> None:
    archive = header(name=b"a", size=b"%011o\0" % 700) + padded(b"a" * 700) + header(name=b"b") + END
    seen = read([archive[:shift], archive[shift:]])
    assert [(entry[0], entry[-1]) for entry in seen] == [(b"a", b"a" * 700), (b"b", b"")]


def test_entries_are_limited() -> None:
    with pytest.raises(Damaged, match="3 entries"):
        read([header() * 4 + END], max_entries=3)
    assert len(read([(pax((b"mtime", b"1.5")) + header()) * 3 + END], max_entries=3)) == 3


@pytest.mark.parametrize(
    "bomb",
    [
        pax(*[(b"comment", b"x")] * 30) + header(),
        header(b"P", b"x") * 30 + header(),
        (header(b"P", b"L", b"%011o\0" % 1) + padded(b"n")) * 30 + header(),
        pax((b"GNU.sparse.map", b",".join([b"0"] * 30)), (b"GNU.sparse.size", b"9")) + header(),
    ],
    ids=["records", "headers", "long names", "sparse map"],
)
def test_what_makes_no_file_is_limited(bomb: bytes) -> None:
    with pytest.raises(Damaged, match="20 extension records"):
        read([bomb + END], max_records=20)
    assert len(read([bomb + END])) == 1


def test_pax_values_win_over_the_header() -> None:
    archive = pax(
        (b"path", b"new\nname"), (b"mtime", b"-1.25"), (b"uid", b"70000"), (b"size", b"3"), (b"SCHILY.xattr.user.k", b"a\0=b\n")
    ) + header(b"old", size=b"00000000000\0") + padded(b"abc") + END  # fmt: skip
    (entry,) = read([archive])
    assert entry[0] == b"new\nname"
    assert entry[3] == 70000
    assert entry[6] == -1_250_000_000
    assert entry[10] == ((b"user.k", b"a\0=b\n"),)
    assert entry[-1] == b"abc"


def test_global_headers_and_volume_labels_are_skipped() -> None:
    archive = pax((b"path", b"evil"), kind=b"g") + header(b"label", b"V") + header(b"good") + END
    assert names(archive) == [b"good"]


def test_links_and_directories_have_no_content() -> None:
    size = b"%011o\0" % 4096
    archive = (
        header(b"l", LINK, size, link=b"t") + header(b"s", SYMLINK, size, link=b"t") + header(b"d/", DIRECTORY, size) + END
    )
    assert [each[1:6:4] for each in read([archive])] == [(LINK, 0), (SYMLINK, 0), (DIRECTORY, 0)]


def test_old_directories_end_in_a_slash() -> None:
    archive = header(b"d/", b"\0", b"%011o\0" % 3, magic=b"") + padded(b"abc") + header(b"f", b"\0", magic=b"") + END
    assert [each[:2] for each in read([archive])] == [(b"d/", DIRECTORY), (b"f", FILE)]


def test_prefix_counts_for_posix_headers_only() -> None:
    assert names(header(b"b", prefix=b"a") + END) == [b"a/b"]
    assert names(header(b"b", prefix=b"a", magic=b"ustar  \0") + END) == [b"b"]


def test_names_are_bytes() -> None:
    assert names(header(b"\xff\xfe\n") + END) == [b"\xff\xfe\n"]


SPARSE_1_0 = (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"real")


def sparse_1_0(mapping: bytes, content: bytes, size: int) -> bytes:
    stored = padded(mapping) + content
    records = (*SPARSE_1_0, (b"GNU.sparse.realsize", b"%d" % size))
    return pax(*records) + header(b"GNUSparseFile.0/real", size=b"%011o\0" % len(stored)) + padded(stored) + END


def test_sparse_1_0() -> None:
    (entry,) = read([sparse_1_0(b"2\n10\n3\n1000\n2\n", b"abcde", 2000)])
    assert entry[0] == b"real"
    assert entry[5] == 2000
    assert entry[11:] == (((10, 3), (1000, 2)), b"abcde")


def test_largest_sparse_map_is_read_once() -> None:
    (entry,) = read([sparse_1_0(b"65536\n" + b"7\n0\n" * 65536, b"", 2000)])
    assert entry[11] == ((7, 0),) * 65536


def test_sparse_0_1_and_0_0() -> None:
    new = pax((b"GNU.sparse.map", b"10,3,1000,2"), (b"GNU.sparse.size", b"2000"), (b"GNU.sparse.name", b"real"))
    old = pax(
        *[(b"GNU.sparse.size", b"2000"), (b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.offset", b"10")],
        *[(b"GNU.sparse.numbytes", b"3"), (b"GNU.sparse.offset", b"1000"), (b"GNU.sparse.numbytes", b"2")],
    )
    body = header(b"real", size=b"%011o\0" % 5) + padded(b"abcde")
    for entry in read([new + body + old + body + END]):
        assert entry[5] == 2000
        assert entry[11:] == (((10, 3), (1000, 2)), b"abcde")


def old_sparse(regions: list[tuple[int, int]], size: int, content: bytes) -> bytes:
    pairs = [b"%011o\0%011o\0" % region for region in regions]
    block = bytearray(header(b"real", b"S", b"%011o\0" % len(content)))
    block[386:482] = b"".join(pairs[:4]).ljust(96, b"\0")
    block[482] = len(pairs) > 4
    block[483:495] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    more, pairs = b"", pairs[4:]
    while pairs:
        more += (b"".join(pairs[:21]).ljust(504, b"\0") + bytes([len(pairs) > 21])).ljust(512, b"\0")
        pairs = pairs[21:]
    return bytes(block) + more + padded(content) + END


@pytest.mark.parametrize("count", [0, 1, 4, 5, 25, 26, 60])
def test_old_sparse(count: int) -> None:
    regions = [(at * 100, 2) for at in range(count)]
    archive = old_sparse(regions, 10000, b"ab" * count)
    (entry,) = read([archive])
    assert entry[5] == 10000
    assert entry[11:] == (tuple(regions), b"ab" * count)
    assert read(archive[at : at + 1] for at in range(len(archive))) == [entry]


@pytest.mark.parametrize(
    "archive",
    [
        sparse_1_0(b"2\n10\n3\n12\n2\n", b"abcde", 2000),
        sparse_1_0(b"2\n100\n3\n10\n2\n", b"abcde", 2000),
        sparse_1_0(b"1\n1999\n5\n", b"abcde", 2000),
        sparse_1_0(b"1\n10\n4\n", b"abcde", 2000),
        sparse_1_0(b"10000000\n", b"", 2000),
        sparse_1_0(b"-1\n", b"", 2000),
        sparse_1_0(b"2\n10\n", b"", 2000),
        sparse_1_0(b"\n" * 600, b"", 2000),
        sparse_1_0(b"1" * 2000, b"", 2000),
        old_sparse([(0, 5), (3, 5)], 100, b"a" * 10),
        old_sparse([(0, 5)], 4, b"a" * 5),
        pax((b"GNU.sparse.map", b"1,2,3"), (b"GNU.sparse.size", b"9")) + header() + END,
        pax((b"GNU.sparse.map", b"0,0," * 70000 + b"0,0"), (b"GNU.sparse.size", b"9")) + header() + END,
        pax((b"GNU.sparse.map", b"0,0")) + header() + END,
    ],
)
def test_bad_sparse_maps_are_damaged(archive: bytes) -> None:
    with pytest.raises(Damaged, match="sparse"):
        read([archive])
