"""What is told of a pull or push while it runs: one document per transfer, one event per change."""

import msgspec


class LayerState(msgspec.Struct, frozen=True, kw_only=True):
    """One layer: bytes as they travel; `retries` are connections after the first, `source` is who serves it."""

    digest: str
    size: int = 0
    done: int = 0
    stage: str = ""
    retries: int = 0
    source: str = ""


class TransferState(msgspec.Struct, frozen=True, kw_only=True):
    """One pull or push. `image` or `error` is set when it has ended."""

    id: str = ""
    reference: str = ""
    stage: str = ""
    image: str = ""
    error: str = ""
    layers: list[LayerState] = []


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of an event stream. `type` is `begin` (id, reference), `stage`, `layer` (its `place` counts from the lowest), then
    at the end `result` (image, and for a push digest and note) or `error`.
    """

    type: str
    id: str = ""
    reference: str = ""
    stage: str = ""
    place: int = -1
    layer: LayerState | None = None
    image: str = ""
    digest: str = ""
    note: str = ""
    error: str = ""
