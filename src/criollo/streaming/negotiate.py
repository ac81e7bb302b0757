"""What to speak with a client, decided from its request alone, before anything is promised.

    Upgrade: SPDY/3.1    X-Stream-Protocol-Version: v4.channel.k8s.io      ▶ 101, the same header with the one chosen
    Upgrade: websocket   Sec-WebSocket-Protocol: v5.channel.k8s.io         ▶ websocket.py

The first version that the client names and we have is taken, as kubelet's servers do.
Source: k8s.io/streaming, pkg/httpstream (Handshake) and pkg/httpstream/spdy (UpgradeResponse).
"""

from typing import Final
from urllib.parse import urlsplit

from criollo.aio.http_server import Reply, Request, text
from criollo.model.session import ForwardSession, Session
from criollo.streaming.session import VERSIONS

PROTOCOL_VERSION: Final = "x-stream-protocol-version"
ACCEPTED_VERSIONS: Final = "x-accepted-stream-protocol-versions"
SPDY: Final = "SPDY/3.1"
PROCESS_PROTOCOLS: Final = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
FORWARD_PROTOCOLS: Final = ("portforward.k8s.io",)


def wants(request: Request, protocol: str) -> bool:
    """Whether the client asks to speak `protocol` instead of HTTP."""
    return "upgrade" in _words(request, "connection") and protocol.lower() in _words(request, "upgrade")


def spdy_protocol(request: Request, session: Session) -> str | Reply:
    """The protocol to speak over SPDY, or why there is none."""
    offered = [word for word in request.headers.get(PROTOCOL_VERSION, "").split(",") if word.strip()]
    if not offered:
        return text(400, f"cannot upgrade: header {PROTOCOL_VERSION} is missing or empty; name a protocol in it")
    ours = FORWARD_PROTOCOLS if isinstance(session, ForwardSession) else PROCESS_PROTOCOLS
    chosen = next((word.strip() for word in offered if word.strip() in ours), None)
    if chosen is None:
        refusal = text(403, f"cannot upgrade: the client speaks none of {', '.join(ours)}")
        return _with(refusal, *((ACCEPTED_VERSIONS, name) for name in ours))
    return chosen


def version(protocol: str) -> int:
    """The version of an exec's or attach's protocol."""
    return VERSIONS[protocol]


def spdy_head(protocol: str) -> bytes:
    """What agrees to speak SPDY."""
    return (
        f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {SPDY}\r\n"
        f"X-Stream-Protocol-Version: {protocol}\r\n\r\n"
    ).encode()


def foreign_origin(request: Request, own_hosts: frozenset[str]) -> Reply | None:
    """Refuse a browser's page from elsewhere that connects to us directly.

    Through kubelet come the Host and Origin of a browser that talks to the API server: then Host is none of `own_hosts`
    (`address:port`, lower-case), and who may come in was decided there.
    """
    origin, host = request.headers.get("origin", ""), request.headers.get("host", "").strip().lower()
    if not origin or host not in own_hosts:
        return None
    try:
        same = urlsplit(origin.strip()).netloc.lower() == host
    except ValueError:
        same = False
    return None if same else text(403, "cannot upgrade: the Origin of this page is not this server")


def _words(request: Request, name: str) -> set[str]:
    return {word.strip().lower() for word in request.headers.get(name, "").split(",")}


def _with(reply: Reply, *headers: tuple[str, str]) -> Reply:
    return Reply(status=reply.status, body=reply.body, headers=headers)
