"""What a check of the stores found: told by the daemon, shown by `crio check`."""

from typing import Final

import msgspec

WHOLE: Final = "whole"
DAMAGED: Final = "damaged"
MISSING: Final = "missing"
UNCHECKED: Final = "unchecked"
REPAIRED: Final = "repaired"


class LayerCheck(msgspec.Struct, kw_only=True):
    """A layer that is not whole, or could not be checked: what is wrong, who uses it, why it was not repaired.

    `findings` are the first of `count`. `unused` says that no image has it.
    """

    layer: str
    state: str
    findings: list[str] = []
    count: int = 0
    images: list[str] = []
    containers: list[str] = []
    unused: bool = False
    not_repaired: str = ""


class ImageCheck(msgspec.Struct, kw_only=True):
    """An image whose record is wrong, which no layer can mend."""

    image: str
    findings: list[str] = []
    containers: list[str] = []
    removed: bool = False


class Report(msgspec.Struct, kw_only=True):
    """A whole check. `size_bytes` is what was read; `proven` counts layers whose every byte added up to the diff id."""

    quick: bool
    images: int = 0
    layers: int = 0
    checked: int = 0
    proven: int = 0
    size_bytes: int = 0
    seconds: float = 0
    databases: list[str] = []
    damaged: list[LayerCheck] = []
    unchecked: list[LayerCheck] = []
    broken: list[ImageCheck] = []
    containers: list[str] = []
    garbage: list[str] = []
    swept: list[str] = []

    @property
    def is_damaged(self) -> bool:
        """Whether something is damaged that is not repaired."""
        layers = any(each.state != REPAIRED for each in self.damaged)
        return bool(layers or self.databases or self.containers or any(not each.removed for each in self.broken))


class Scrubbed(msgspec.Struct, kw_only=True):
    """How the scrub stands since the daemon's start; `last_ns` since the epoch, 0: none yet.

    `damaged` is what the last look at each layer found.
    """

    enabled: bool = False
    bytes_per_s: int = 0
    every_s: float = 0
    layers: int = 0
    looked_at: int = 0
    last_ns: int = 0
    size_bytes: int = 0
    damaged: list[LayerCheck] = []
