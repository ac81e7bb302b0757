"""Which proxy, if any, stands between us and a host: HTTPS_PROXY, HTTP_PROXY and NO_PROXY, as Go's tools read them.

Source: golang.org/x/net/http/httpproxy: capital names first, loopback never proxied, NO_PROXY with names, addresses,
networks and ports.
"""

import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

from criollo.errors import Invalid

_SCHEMES: Final = ("http", "https")


class Proxies:
    """The proxy settings of one environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read the settings.

        Raises:
            Invalid: a proxy is no http or https URL; its password is not shown.
        """
        self._urls = {scheme: _proxy_url(environ, f"{scheme}_proxy") for scheme in _SCHEMES}
        if environ.get("REQUEST_METHOD"):  # a CGI program's HTTP_PROXY comes from its client
            self._urls["http"] = ""
        no_proxy = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
        self._exceptions = [word.strip().lower() for word in no_proxy.split(",") if word.strip()]

    def choose(self, scheme: str, host: str, port: int) -> str:
        """The proxy's URL for a host (no brackets around an address), or an empty string."""
        url = self._urls.get(scheme, "")
        if not url or _is_loopback(host) or any(_excepts(word, host.lower(), port) for word in self._exceptions):
            return ""
        return url


def userinfo(url: str) -> str:
    """`user:password` of a proxy's URL, or an empty string."""
    parts = urlsplit(url)
    return f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""


def without_userinfo(url: str) -> str:
    """A URL that may be shown: no user, password or query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _proxy_url(environ: Mapping[str, str], name: str) -> str:
    url = (environ.get(name.upper()) or environ.get(name) or "").strip()
    if not url:
        return ""
    url = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _SCHEMES and parts.hostname and (parts.port or 1)
    except ValueError:
        usable = False
    if not usable:
        raise Invalid(name.upper(), "another form", "the URL of an http or https proxy, such as http://proxy.example.com:3128")
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
