"""A small document of any web server, asked for without credentials: signatures in a lookaside.

Plain HTTP only where the URL says so; a redirect may not leave TLS. Files of certs.d count for the hosts they name.
"""

from urllib3.response import BaseHTTPResponse

from criollo.errors import Unavailable
from criollo.registry import redirects
from criollo.registry.answers import wait_s
from criollo.registry.connections import Connections, Retryable
from criollo.registry.exchange import Exchange
from criollo.registry.hosts import Hosts
from criollo.registry.redirects import next_hop, origin


def fetch(url: str, limit_bytes: int, *, what: str, connections: Connections, exchange: Exchange) -> bytes | None:
    """The document, or None if the server has none; in a transfer thread.

    Raises:
        Retryable: it is out of reach, overloaded or failing.
        Unavailable: anything else that is no answer.
        Invalid: longer than the limit.
    """
    hosts = exchange.hosts
    for _ in range(redirects.MAX_HOPS + 1):
        answer = _ask(url, connections, hosts)
        host = origin(url).netloc
        if answer.status in redirects.STATUSES:
            location = answer.headers.get("Location", "")
            answer.close()
            url = next_hop(url, location, may_be_plain=lambda there: hosts.is_insecure(there.netloc))
            continue
        if answer.status == 200:
            return exchange.read(answer, limit_bytes, what=what, host=host)
        answer.close()
        if answer.status == 404:
            return None
        said = f"cannot fetch {what} from {host}: it answers {answer.status}"
        if answer.status in (408, 425, 429) or answer.status >= 500:
            raise Retryable(f"{said}; try again later", wait_s=wait_s(answer))
        raise Unavailable(f"{said}; look at the lookaside of registries.d")
    raise Unavailable(f"cannot fetch {what} from {origin(url).netloc}: over {redirects.MAX_HOPS} redirects")


def _ask(url: str, connections: Connections, hosts: Hosts) -> BaseHTTPResponse:
    there = origin(url)
    return connections.request(
        "GET",
        url,
        headers={"Accept-Encoding": "identity"},
        insecure=hosts.is_insecure(there.netloc),
        tls=hosts.tls(there.netloc),
    )
