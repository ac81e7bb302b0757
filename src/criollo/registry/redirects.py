"""Where a redirect may lead: never to a weaker scheme, another protocol or the node's own neighbourhood.

Credentials do not follow: the client drops them as soon as the origin (scheme, host, port) changes.
"""

import ipaddress
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import urljoin, urlsplit

from criollo.errors import Unavailable
from criollo.registry.proxies import without_userinfo

MAX_HOPS: Final = 10
STATUSES: Final = frozenset({301, 302, 303, 307, 308})
_LONGEST_URL: Final = 8192
_PORTS: Final = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Who answers: scheme, host in lower case, port."""

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        """`host[:port]` as registries.conf writes it: the scheme's own port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def origin(url: str) -> Origin:
    """The origin of an http or https URL.

    Raises:
        ValueError: no such URL, or one with a user in it.
    """
    if len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("not a URL")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not an http or https URL of a host")
    return Origin(parts.scheme, parts.hostname.lower(), parts.port or _PORTS[parts.scheme])


def next_hop(url: str, location: str, *, may_be_plain: Callable[[Origin], bool]) -> str:
    """The URL that `location` in an answer from `url` leads to.

    Raises:
        Unavailable: it may not lead there; the message names both hosts.
    """
    here = origin(url)
    try:
        if not location.isascii() or not location.isprintable():  # urljoin would drop line ends silently
            raise ValueError("not a URL")
        target = urljoin(url, location)
        there = origin(target)
    except ValueError:
        raise _refused(here, "something that is no plain http or https URL") from None
    if there == here:
        return target
    if there.scheme == "http" and here.scheme == "https":
        raise _refused(here, f"{without_userinfo(target)}, which is not encrypted")
    if there.scheme == "http" and there.host != here.host and not may_be_plain(there):
        raise _refused(here, f"{there.netloc}, which registries.conf does not mark as insecure")
    if _is_near(there.host) and there.host != here.host and not _is_near(here.host):
        raise _refused(here, f"{there.netloc}, an address of this node or its link")
    return target


def _is_near(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_link_local or address.is_unspecified


def _refused(here: Origin, where: str) -> Unavailable:
    return Unavailable(f"cannot fetch from registry {here.netloc}: it redirects to {where}; this is not followed")
