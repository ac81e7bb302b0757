"""Where one repository may be asked for, and how that server is spoken to.

Names of files of keys and headers may hold secrets, or lead to them: an endpoint shows as its name and nothing more.
"""

from typing import Final

import msgspec

# What a server may be asked for, in containerd's words.
RESOLVE: Final = "resolve"
PULL: Final = "pull"
PUSH: Final = "push"
# The name docker.io is served by another host (docker's own convention).
_API_HOSTS: Final = {"docker.io": "registry-1.docker.io"}


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """What TLS with one host needs beyond the node's trust store: files of authorities, of our certificate and its key."""

    authorities: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""


NO_TLS: Final = Tls()


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A repository on a server: where an image may be fetched.

    `scheme` is empty where https is meant, and http too if it is insecure. `base` comes before the repository in the path,
    `namespace` names the registry that a mirror stands for (containerd's `ns`). `dial_s` is how long a connection to it may
    take, 0 for the client's own limit. `because` says which line of which file brought it here.
    """

    host: str
    repository: str
    is_insecure: bool = False
    is_mirror: bool = False
    scheme: str = ""
    base: str = "/v2"
    namespace: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    tls: Tls = NO_TLS
    dial_s: float = 0
    because: str = ""

    @property
    def api_host(self) -> str:
        """The host that answers the registry's protocol, with its port if one is named."""
        return _API_HOSTS.get(self.host, self.host)

    @property
    def name(self) -> str:
        return f"{self.host}/{self.repository}"

    @property
    def schemes(self) -> tuple[str, ...]:
        """What to speak with it, in order."""
        if self.scheme:
            return (self.scheme,)
        return ("https", "http") if self.is_insecure else ("https",)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Endpoint({self.name})"


def api_host(domain: str) -> str:
    """The host that serves the names of a domain when nothing else is said."""
    return _API_HOSTS.get(domain, domain)
