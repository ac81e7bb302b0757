"""Platforms: what an image runs on, spelled one way, and the best of several for a node.

Source: OCI image-spec, image-index.md, section platform; Go's names for systems and processors.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Final, Protocol, Self, TypeVar

import msgspec

from criollo.errors import Invalid, NotFound

_ARCHITECTURES: Final = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "loongarch64": ("loong64", ""),
}
_SYSTEMS: Final = {"macos": "darwin"}
# Without a variant, these are meant; each is left out again where it is the only one that matters.
_DEFAULT_VARIANTS: Final = {"arm": "v7", "arm64": "v8", "amd64": "v1"}


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """Operating system, processor architecture and its variant, in normal spelling (`normal`)."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def normal(cls, system: str, architecture: str, variant: str = "") -> Self:
        """The platform that these words mean: `x86_64` is `amd64`, `arm64` `v8` is `arm64`, `arm` is `arm` `v7`."""
        system = _SYSTEMS.get(system.lower(), system.lower())
        architecture, implied = _ARCHITECTURES.get(architecture.lower(), (architecture.lower(), ""))
        variant = (variant or implied).lower()
        variant = f"v{variant}" if variant.isdigit() else variant
        default = _DEFAULT_VARIANTS.get(architecture, "")
        if architecture == "arm":
            variant = variant or default
        elif variant == default:
            variant = ""
        return cls(os=system, architecture=architecture, variant=variant)

    @classmethod
    def parse(cls, text: str, *, field: str) -> Self:
        """`os/architecture[/variant]`. Raises Invalid: it is not."""
        words = text.split("/")
        if not 2 <= len(words) <= 3 or not all(words):
            raise Invalid(field, text, "os/architecture[/variant]")
        return cls.normal(*words)

    def __str__(self) -> str:
        return "/".join(word for word in (self.os, self.architecture, self.variant) if word)

    @property
    def is_unknown(self) -> bool:
        """`unknown/unknown`: an attestation or another attachment, not an image."""
        return self.os == "unknown" or self.architecture == "unknown"


class Offer(Protocol):
    """One entry of an index."""

    @property
    def platform(self) -> Platform | None: ...


_Entry = TypeVar("_Entry", bound=Offer)


def host_platform() -> Platform:
    """The platform of this kernel."""
    kernel = os.uname()
    return Platform.normal(kernel.sysname, kernel.machine)


def select(wanted: Platform, entries: Iterable[_Entry]) -> _Entry:
    """The entry that runs best on `wanted`: the same variant, else the newest older one, else one that says no platform.

    Among equals the first wins.

    Raises:
        NotFound: none fits; the message lists what is offered.
    """
    offered = list(entries)
    for fitting in _in_order(wanted):
        for entry in offered:
            if entry.platform == fitting:
                return entry
    for entry in offered:
        if entry.platform is None:
            return entry
    known = sorted({str(entry.platform) for entry in offered if entry.platform and not entry.platform.is_unknown})
    raise NotFound("image for platform", str(wanted), f"the index offers {', '.join(known[:20]) or 'nothing that runs'}")


def _in_order(wanted: Platform) -> Iterator[Platform]:
    yield wanted
    number = wanted.variant.removeprefix("v")
    if wanted.variant and number.isdecimal() and number.isascii():
        oldest = 5 if wanted.architecture == "arm" else 1
        for older in range(min(int(number), 99) - 1, oldest - 1, -1):
            yield _exact(wanted, f"v{older}")
    yield _exact(wanted, "")


def _exact(wanted: Platform, variant: str) -> Platform:
    return Platform.normal(wanted.os, wanted.architecture, variant)
