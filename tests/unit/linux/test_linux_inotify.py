"""linux.inotify: events of one read."""

import struct
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from criollo.linux.inotify import IN_CREATE, IN_MODIFY, FileEvent, Inotify, parse

EVENTS = st.lists(
    st.builds(
        FileEvent,
        watch=st.integers(-1, 2**31 - 1),
        mask=st.integers(0, 2**32 - 1),
        name=st.binary(max_size=64).map(lambda name: name.replace(b"\0", b"")),
    ),
    max_size=8,
)


def encoded(events: list[FileEvent]) -> bytes:
    parts = []
    for event in events:
        padded = event.name + b"\0" * (16 - len(event.name) % 16)
        parts.append(struct.pack("iIII", event.watch, event.mask, 0, len(padded)) + padded)
    return b"".join(parts)


@given(EVENTS)
def test_parse_gives_back_what_the_kernel_wrote(events: list[FileEvent]) -> None:
    assert parse(encoded(events)) == events


@given(EVENTS, st.integers(0, 400))
def test_parse_drops_a_cut_event_only(events: list[FileEvent], cut: int) -> None:
    parsed = parse(encoded(events)[:cut])
    assert parsed == events[: len(parsed)]


@given(st.binary(max_size=512))
def test_parse_survives_any_bytes(junk: bytes) -> None:
    assert isinstance(parse(junk), list)


def test_a_new_file_is_an_event(tmp_path: Path) -> None:
    watcher = Inotify()
    try:
        watch = watcher.add(tmp_path)
        (tmp_path / "a").touch()
        assert any(event.watch == watch and event.mask & IN_CREATE and event.name == b"a" for event in watcher.read())
    finally:
        watcher.close()


def test_reading_nothing_gives_nothing(tmp_path: Path) -> None:
    watcher = Inotify()
    try:
        watcher.add(tmp_path)
        assert watcher.read() == []
    finally:
        watcher.close()


def test_a_change_of_a_file_is_an_event_of_its_watch(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.touch()
    watcher = Inotify()
    try:
        watch = watcher.add_file(file, IN_MODIFY)
        file.write_text("more")
        assert [(event.watch, event.mask, event.name) for event in watcher.read()] == [(watch, IN_MODIFY, b"")]
    finally:
        watcher.close()
