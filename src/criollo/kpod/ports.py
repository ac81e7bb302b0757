"""The words of `kpod port-forward`. Pure."""

import re
from typing import Final, NamedTuple

from criollo.errors import Invalid

LOCALHOST: Final = ("127.0.0.1", "::1")

_FORWARD: Final = re.compile(
    r"(?:(?:\[(?P<ip6>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9.-]+)):(?=.*:))?(?:(?P<local>[0-9]{0,5}):)?(?P<remote>[0-9]{1,5})"
)


class Forward(NamedTuple):
    """A port here, 0 for any that is free, and the pod's. `addresses` are where it listens."""

    addresses: tuple[str, ...]
    local: int
    remote: int


def parse_forward(text: str, addresses: tuple[str, ...]) -> Forward:
    """`80`, `8080:80`, `:80`, `ADDRESS:8080:80`; without an address it listens at `addresses`. Raises Invalid."""
    match = _FORWARD.fullmatch(text)
    if match is None:
        raise Invalid("port", text, "[ADDRESS:]LOCAL:REMOTE, such as 8080:80, :80 or 80")
    remote = int(match["remote"])
    local = remote if match["local"] is None else int(match["local"] or 0)
    if not 1 <= remote <= 65535 or local > 65535:
        raise Invalid("port", text, "ports from 1 to 65535")
    address = match["ip6"] or match["name"]
    return Forward(parse_addresses(address) if address else addresses, local, remote)


def parse_addresses(text: str) -> tuple[str, ...]:
    """`localhost,10.0.0.1`: addresses of this node, of which localhost is two. Raises Invalid."""
    found: dict[str, None] = {}
    for word in text.split(","):
        if not re.fullmatch(r"[0-9A-Za-z.:%-]+", word):
            raise Invalid("--address", text, "addresses with commas between them, such as localhost,10.0.0.1")
        found.update(dict.fromkeys(LOCALHOST if word == "localhost" else (word,)))
    return tuple(found)
