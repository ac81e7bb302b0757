"""A WebSocket client's side of the handshake, for what is spoken inside of one. Source: RFC 6455, section 4.1."""

import base64
import os
from collections.abc import Mapping, Sequence

from criollo.wire.websocket import accept_value


def new_key() -> str:
    """Any will do, no two alike."""
    return base64.b64encode(os.urandom(16)).decode()


def request_headers(key: str, offers: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """All but Host."""
    return (
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Protocol", ", ".join(offers)),
    )


def chosen_subprotocol(headers: Mapping[str, str], key: str) -> str:
    """What a server chose, from the headers of its 101; their names are lower-case."""
    assert headers["upgrade"].lower() == "websocket"
    assert headers["connection"].lower() == "upgrade"
    assert headers["sec-websocket-accept"] == accept_value(key)
    return headers.get("sec-websocket-protocol", "")
