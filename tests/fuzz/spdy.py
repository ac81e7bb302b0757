"""Coverage-guided fuzzing of the SPDY session: frames of every kind in any order, whole and cut, beside calls of its user.

    python3 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris msgspec wsproto
    mkdir -p /tmp/corpus-spdy && PYTHONPATH=src /tmp/fuzz/bin/python tests/fuzz/spdy.py -max_total_time=300 /tmp/corpus-spdy

What must hold: no exception, an event for every input or none but never endless ones, answers in proportion to what came, few
held bytes, few streams. `tests/unit/wire/test_wire_spdy*.py` has the same as properties for each run of the tests.
"""

import struct
import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["criollo.wire"]):
    from criollo.wire import spdy_frames as frames
    from criollo.wire.spdy import SpdySession
    from criollo.wire.spdy_events import Received
    from criollo.wire.spdy_headers import Deflater
    from criollo.wire.spdy_windows import SESSION_WINDOW

STREAMS = 3
IDS = (0, 1, 2, 3, 4, 5, 6, 7, 9, 0x7FFFFFFF)
HELD_BYTES = 64 << 10


def junk_block(deflater: Deflater, source: atheris.FuzzedDataProvider) -> bytes:
    """A header block of any bytes, in the session's own compressed stream."""
    octets = source.ConsumeBytes(source.ConsumeIntInRange(0, 60))
    return deflater._zlib.compress(octets) + deflater._zlib.flush(2)


def number(source: atheris.FuzzedDataProvider) -> int:
    return source.ConsumeInt(4) & 0xFFFFFFFF


def frame(source: atheris.FuzzedDataProvider, deflater: Deflater, stream_id: int) -> bytes:
    """One frame as a peer may send it, or no frame at all."""
    flags = source.ConsumeIntInRange(0, 3)
    makers: list[Callable[[], bytes]] = [
        lambda: frames.syn_stream(stream_id, deflater.block({"a": "b"}), flags),
        lambda: frames.syn_stream(stream_id, junk_block(deflater, source), flags),
        lambda: frames.with_headers(frames.FrameKind.SYN_REPLY, stream_id, deflater.block({}), flags),
        lambda: frames.with_headers(frames.FrameKind.HEADERS, stream_id, deflater.block({"x": "y"}), flags),
        lambda: frames.control(frames.FrameKind.RST_STREAM, struct.pack(">II", stream_id, source.ConsumeIntInRange(0, 12))),
        lambda: frames.control(
            frames.FrameKind.SETTINGS, struct.pack(">III", 1, source.ConsumeIntInRange(0, 9), number(source))
        ),
        lambda: frames.ping(stream_id),
        lambda: frames.goaway(stream_id, frames.Farewell.OK),
        lambda: frames.window_update(stream_id, number(source)),
        lambda: payload(source, stream_id, flags),
        lambda: frames.control(source.ConsumeIntInRange(0, 20), source.ConsumeBytes(source.ConsumeIntInRange(0, 30)), flags),
        lambda: source.ConsumeBytes(source.ConsumeIntInRange(0, 40)),
    ]
    return makers[source.ConsumeIntInRange(0, len(makers) - 1)]()


def payload(source: atheris.FuzzedDataProvider, stream_id: int, flags: int) -> bytes:
    size = source.ConsumeIntInRange(0, 300_000)
    return frames.payload_head(stream_id, size, flags) + bytes(size)


def use(source: atheris.FuzzedDataProvider, session: SpdySession, stream_id: int) -> None:
    """What our side may do with a stream at any time."""
    match source.ConsumeIntInRange(0, 4):
        case 0:
            session.reply(stream_id)
        case 1:
            session.finish(stream_id)
        case 2:
            session.reset(stream_id)
        case 3 if room := session.room(stream_id):
            session.payload(stream_id, min(room, 70_000))
        case 4 if source.ConsumeIntInRange(0, 9) == 0:
            session.take_no_more()


def take(session: SpdySession, part: bytes, now: float, *, is_read: bool) -> None:
    session.receive(part, now)
    steps = 0
    while session.has_input:
        event = session.step()
        steps += 1
        assert steps <= len(part) + 1
        if isinstance(event, Received):
            assert len(event.octets) <= len(part)
            if is_read:
                session.used_up(event.stream_id, len(event.octets))


def one_input(octets: bytes) -> None:
    source = atheris.FuzzedDataProvider(octets)
    session, deflater = SpdySession(is_client=source.ConsumeBool(), max_streams=STREAMS), Deflater()
    now = 0.0
    while source.remaining_bytes():
        stream_id = IDS[source.ConsumeIntInRange(0, len(IDS) - 1)]
        if source.ConsumeIntInRange(0, 4) == 0:
            use(source, session, stream_id)
            now += source.ConsumeIntInRange(0, 1)
            continue
        said = frame(source, deflater, stream_id)
        cut = source.ConsumeIntInRange(0, len(said))
        is_read = source.ConsumeBool()
        for part in filter(None, (said[:cut], said[cut:])):
            take(session, part, now, is_read=is_read)
        answered = session.take_output()
        assert len(answered) <= 400 + 8 * len(said), (len(answered), len(said))
        assert sum(session._is_theirs(known) for known in session._streams) <= STREAMS
        assert len(session._intake._held) <= HELD_BYTES
        assert session._window.room_out <= max(frames.MAX_WINDOW, SESSION_WINDOW)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
