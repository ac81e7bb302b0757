"""Coverage-guided fuzzing of WebSocket frames and the channels in them, in every subprotocol of ours.

    python3 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris msgspec wsproto
    mkdir -p /tmp/corpus-ws && PYTHONPATH=src /tmp/fuzz/bin/python tests/fuzz/websocket.py -max_total_time=300 /tmp/corpus-ws

What must hold: nothing but `Broken` with a close code and a reason; channels that there are and are wanted; sizes in range;
no more bytes out than in, no endless events, next to nothing held between two parts.
"""

import struct
import sys
from collections.abc import Iterator

import atheris

with atheris.instrument_imports(include=["criollo.wire", "wsproto"]):
    from criollo.wire import channels
    from criollo.wire.websocket import Broken, Closed, Frames, Part, Ping

KINDS = tuple(channels.subprotocol(name) for name in channels.EXEC)
OPCODES = (0, 0, 1, 1, 2, 2, 3, 8, 9, 10, 11)
SAID = (0, 125, 126, 65535, 65536, 2**31, 2**62, 2**63)  # lengths that need not be those of the payload
CONTROL_BYTES = 125
RESIZE_BYTES = 1 << 10


def frame(source: atheris.FuzzedDataProvider, *, is_masked: bool) -> bytes:
    """One frame as a peer may send it."""
    opcode, is_last = source.PickValueInList(list(OPCODES)), source.ConsumeBool()
    body = payload(source)
    said = len(body) if source.ConsumeIntInRange(0, 15) else source.PickValueInList(list(SAID))
    mask = 0x80 if is_masked ^ (source.ConsumeIntInRange(0, 31) == 0) else 0
    form = source.ConsumeIntInRange(0, 15)
    if form == 0 or said > 65535:
        length = bytes([127 | mask]) + struct.pack(">Q", said)
    elif form == 1 or said > CONTROL_BYTES:
        length = bytes([126 | mask]) + struct.pack(">H", said)
    else:
        length = bytes([said | mask])
    key = source.ConsumeBytes(4).ljust(4, b"\0") if mask else b""
    if mask:
        body = bytes(octet ^ key[place & 3] for place, octet in enumerate(body))
    reserved = source.PickValueInList([0, 0, 0, 0, 0x40, 0x20])
    return bytes([(0x80 if is_last else 0) | reserved | opcode]) + length + key + body


def payload(source: atheris.FuzzedDataProvider) -> bytes:
    match source.ConsumeIntInRange(0, 7):
        case 0:
            return b'\4{"Width":%d,"Height":%d}' % (source.ConsumeInt(3), source.ConsumeInt(3))
        case 1 | 2 | 3:
            first = source.PickValueInList([0, 1, 3, 4, 5, 48, 52, 255])
            return bytes([first]) + source.ConsumeBytes(source.ConsumeIntInRange(0, 200))
        case _:
            return source.ConsumeBytes(source.ConsumeIntInRange(0, 200))


def cut(source: atheris.FuzzedDataProvider, octets: bytes) -> Iterator[bytes]:
    """In two parts, or byte by byte."""
    if source.ConsumeBool():
        place = source.ConsumeIntInRange(0, len(octets))
        yield from filter(None, (octets[:place], octets[place:]))
    else:
        yield from (octets[place : place + 1] for place in range(len(octets)))


class Session:
    """What a side of a WebSocket does with what it gets."""

    def __init__(self, source: atheris.FuzzedDataProvider) -> None:
        self.is_client = source.ConsumeIntInRange(0, 7) == 0
        self._frames = Frames(is_client=self.is_client)
        self._count = source.PickValueInList([5, 5, 2, 8])
        self._wanted = (0, 4) if self._count == channels.EXEC_CHANNELS else tuple(range(0, self._count, 2))
        kind = KINDS[source.ConsumeIntInRange(0, len(KINDS) - 1)]
        self._demux, self._resizes = channels.Demux(kind, self._count, self._wanted), channels.Resizes()
        self._in = self._out = self._events = 0

    def take(self, part: bytes) -> None:
        self._in += len(part)
        for event in self._frames.receive(part):
            self._events += 1
            match event:
                case Part():
                    self._out += len(event.payload)
                    for found in self._demux.receive(event.payload, ends=event.ends):
                        self._look(found)
                case Ping(answer):
                    assert len(answer) <= CONTROL_BYTES
                case Closed(_, reason):
                    assert len(reason) <= CONTROL_BYTES
        assert self._out <= self._in
        assert self._events <= 2 * self._in + 1
        assert len(self._demux._end_signal) <= 1
        assert len(self._demux._base64._rest) < 4
        assert len(self._resizes._begun) <= RESIZE_BYTES + 1

    def _look(self, found: channels.Chunk | channels.ChannelEnded) -> None:
        if isinstance(found, channels.ChannelEnded):
            assert 0 <= found.channel < self._count
            return
        assert found.channel in self._wanted
        if found.channel == channels.RESIZE:
            try:
                size = self._resizes.receive(found)
            except Broken:
                raise AssertionError("a size that is none ends no session") from None
            except ValueError:
                return
            assert size is None or all(0 < side <= 0xFFFF for side in size)


def one_input(octets: bytes) -> None:
    source = atheris.FuzzedDataProvider(octets)
    session = Session(source)
    try:
        while source.remaining_bytes():
            if source.ConsumeIntInRange(0, 9):
                said = frame(source, is_masked=not session.is_client)
            else:
                said = source.ConsumeBytes(source.ConsumeIntInRange(0, 40))
            for part in cut(source, said):
                session.take(part)
    except Broken as error:
        if not (1000 <= error.code < 1016 and error.reason):
            raise AssertionError(f"no code to close with: {error.code} {error.reason!r}") from error


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
