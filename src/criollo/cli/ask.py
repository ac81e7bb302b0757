"""The HTTP face of a running daemon, asked by a verb: one request, one answer, over its unix socket."""

import http.client
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from criollo.errors import CriolloError, Denied, Unavailable, printable

ANSWER_LIMIT_BYTES: Final = 64 << 20
_CONNECT_S: Final = 5.0


def answers(path: Path) -> bool:
    """Whether a daemon listens there.

    Raises:
        Denied: only root may ask.
        Unavailable: somebody listens and does not accept.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_S)
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return False
        except PermissionError as error:
            raise Denied(f"cannot ask the daemon at {path}: {error.strerror}; use sudo") from error
        except OSError as error:
            raise Unavailable(f"cannot ask the daemon at {path}: {error.strerror or error}; is it stuck?") from error
    return True


def ask(path: Path, method: str, route: str, query: Mapping[str, str]) -> bytes:
    """The body of a good answer; waits as long as the work takes.

    Raises:
        CriolloError: the daemon refused; the text is its own.
        Unavailable: it went away.
    """
    connection = SocketConnection(path)
    try:
        connection.request(method, f"{route}?{urlencode(query)}" if query else route)
        answer = connection.getresponse()
        body = answer.read(ANSWER_LIMIT_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"cannot ask the daemon at {path} for {route}: the connection ended ({error})") from error
    finally:
        connection.close()
    if answer.length:
        raise Unavailable(f"cannot ask the daemon at {path} for {route}: the connection ended before the answer did")
    if answer.status != http.HTTPStatus.OK:
        text = printable(body[:4000].decode("utf-8", "replace").strip())
        raise CriolloError(text or f"{route} was answered with HTTP status {answer.status}")
    return body


class SocketConnection(http.client.HTTPConnection):
    """A connection to the socket at a path."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(os.fspath(self._path))
