"""A connection to the daemon's socket that changes its protocol: for exec, attach, port-forward and files.

The paths of exec, attach and port-forward come from the daemon as URLs of its streaming server; the same paths are served
on its unix socket, so only the path of a URL is used: no TCP, no TLS.
"""

import asyncio
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import h11

from criollo.errors import CriolloError, Unavailable, explain, printable
from criollo.kpod.http import Query

LIMIT_S: Final = 30.0  # for the daemon to agree
_REFUSAL_BYTES: Final = 64 << 10


class Upgraded(NamedTuple):
    """A connection that speaks something else now. `transport` is paused; `first` came with the daemon's agreement."""

    transport: asyncio.Transport
    headers: dict[str, str]
    first: bytes


class UpgradeWish(NamedTuple):
    """What is asked for: `protocol` is the word of the upgrade, `headers` go along."""

    method: str
    target: str
    protocol: str
    headers: tuple[tuple[str, str], ...] = ()


def target_of(url: str) -> str:
    """The path of a URL that the daemon gave. Raises CriolloError for none."""
    try:
        path = urlsplit(url).path
    except ValueError:
        path = ""
    if not path.startswith("/") or len(path) < 2:
        raise CriolloError(f"the daemon gave {printable(url)!r} as the place for a session; is it of another version?")
    return path


def target(path: str, query: Query) -> str:
    """A path with parameters."""
    return f"{path}?{urlencode(query)}"


async def upgrade(socket: Path, wish: UpgradeWish) -> Upgraded:
    """Connect and change the protocol. Close the transport on every path.

    Raises:
        CriolloError: the daemon refuses; the text is its own.
        Unavailable: nobody listens, or the connection ended.
    """
    shaking = _Handshake(wish)
    with explain(f"connect to {socket}"):
        transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: shaking, str(socket))
    try:
        async with asyncio.timeout(LIMIT_S):
            return await shaking.result
    except TimeoutError as error:
        transport.abort()
        raise Unavailable(f"cannot ask {socket}: no answer in {LIMIT_S:g} s; is the daemon stuck?") from error
    except BaseException:
        transport.abort()
        raise


class _Handshake(asyncio.Protocol):
    """Sends the request, waits for the answer."""

    def __init__(self, wish: UpgradeWish) -> None:
        self._wish = wish
        self._h11 = h11.Connection(h11.CLIENT)
        self._transport: asyncio.Transport | None = None
        self._status = 0
        self._body = bytearray()
        self.result: asyncio.Future[Upgraded] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        wish = self._wish
        upgrade = [("host", "localhost"), ("connection", "Upgrade"), ("upgrade", wish.protocol), ("content-length", "0")]
        request = h11.Request(method=wish.method, target=wish.target, headers=[*upgrade, *wish.headers])
        transport.write((self._h11.send(request) or b"") + (self._h11.send(h11.EndOfMessage()) or b""))

    def data_received(self, data: bytes) -> None:
        try:
            self._h11.receive_data(data)
            while (event := self._h11.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                self._take(event)
                if self.result.done():
                    return
        except h11.RemoteProtocolError as error:
            self._fail(Unavailable(f"the answer is no HTTP: {error}; is this the daemon's socket?"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(Unavailable("the connection ended before the answer; is the daemon running?"))

    def _take(self, event: object) -> None:
        if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
            assert self._transport is not None
            self._transport.pause_reading()
            headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
            if not self.result.done():
                self.result.set_result(Upgraded(self._transport, headers, self._h11.trailing_data[0]))
        elif isinstance(event, h11.Response):
            self._status = event.status_code
        elif isinstance(event, h11.Data):
            self._body += event.data[: _REFUSAL_BYTES - len(self._body)]
        elif isinstance(event, h11.EndOfMessage):
            text = printable(self._body.decode("utf-8", "replace").strip())
            self._fail(CriolloError(text or f"{self._wish.target.partition('?')[0]} was answered with status {self._status}"))

    def _fail(self, error: CriolloError) -> None:
        if not self.result.done():
            self.result.set_exception(error)
