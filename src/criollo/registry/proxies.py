"""Which proxy, if any, stands between us and a host: HTTPS_PROXY, HTTP_PROXY and NO_PROXY, as Go's tools read them.

Source: golang.org/x/net/http/httpproxy: capital names first, loopback never proxied, NO_PROXY with names, addresses,
networks and ports.
"""

import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

from criollo.errors import Unavailable, printable
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_SCHEMES: Final = ("http", "https")


class Proxies:
    """The proxy settings of one environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read the settings. A proxy that cannot be used fails those who need it, and nobody else."""
        self._urls: dict[str, str] = {}
        self._problems: dict[str, str] = {}
        for scheme in _SCHEMES:
            if scheme == "http" and environ.get("REQUEST_METHOD"):  # a CGI program's HTTP_PROXY comes from its client
                continue
            name = f"{scheme}_proxy"
            url = (environ.get(name.upper()) or environ.get(name) or "").strip()
            try:
                self._urls[scheme] = _proxy_url(url)
            except Unavailable as error:
                self._problems[scheme] = f"cannot use the proxy of {name.upper()}: {error}"
                log.warning("registries behind a proxy are out of reach", cause=self._problems[scheme])
        no_proxy = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
        self._exceptions = [word.strip().lower() for word in no_proxy.split(",") if word.strip()]

    def choose(self, scheme: str, host: str, port: int) -> str:
        """The proxy's URL for a host (no brackets around an address), or an empty string.

        Raises:
            Unavailable: there is a proxy for it, and we cannot speak with that; its password is not shown.
        """
        url, problem = self._urls.get(scheme, ""), self._problems.get(scheme, "")
        if not (url or problem) or _is_loopback(host):
            return ""
        if any(_excepts(word, host.lower(), port) for word in self._exceptions):
            return ""
        if problem:
            raise Unavailable(problem)
        return url


def userinfo(url: str) -> str:
    """`user:password` of a proxy's URL, or an empty string."""
    parts = urlsplit(url)
    return f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""


def without_userinfo(url: str) -> str:
    """A URL that may be shown: no user, password or query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _proxy_url(url: str) -> str:
    if not url:
        return ""
    url = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(url)
        usable = parts.hostname and (parts.port or 1)
    except ValueError:
        usable = False
    if not usable:
        raise Unavailable("it is no URL; write one such as http://proxy.example.com:3128")
    if parts.scheme not in _SCHEMES:
        raise Unavailable(f"{printable(parts.scheme)[:32]}:// is not supported; write the URL of an http or https proxy")
    return url


def _excepts(word: str, host: str, port: int) -> bool:
    if word == "*":
        return True
    name, colon, said = word.rpartition(":")
    if colon and said.isdecimal() and (":" not in name or name.startswith("[")):
        if int(said) != port:
            return False
        word = name
    word = word.strip("[]")
    address = _address(host)
    if address is not None:
        try:
            return address in ipaddress.ip_network(word, strict=False)
        except ValueError:
            return False
    suffix = word.removeprefix("*")
    return host.endswith(suffix) if suffix.startswith(".") else host == suffix or host.endswith("." + suffix)


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
