"""How far a pull is: for progress bars and for the time limit without progress."""

import asyncio
import time

from criollo.errors import TimedOut


class LayerProgress:
    """One layer: bytes that have arrived of `size_bytes` (compressed), and its stage."""

    __slots__ = ("digest", "done_bytes", "size_bytes", "stage")

    def __init__(self, digest: str, size_bytes: int) -> None:
        self.digest, self.size_bytes = digest, size_bytes
        self.done_bytes = 0
        self.stage = "waiting"  # waiting, pulling, unpacking, here


class PullProgress:
    """One running pull; written by its job and by transfer threads, read by whoever shows it."""

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self.layers: list[LayerProgress] = []
        self.changed_at = time.monotonic()

    def arrived(self, layer: LayerProgress, count: int) -> None:
        layer.done_bytes += count
        self.changed_at = time.monotonic()

    async def watch(self, limit_s: float) -> None:
        """End only by an error: when no byte has come for `limit_s` seconds while one was expected.

        Raises:
            TimedOut: so it is.
        """
        while True:
            if not any(layer.stage == "pulling" for layer in self.layers):
                self.changed_at = time.monotonic()  # in a queue, or busy with the disk
            left_s = self.changed_at + limit_s - time.monotonic()
            if left_s <= 0:
                raise TimedOut(f"cannot pull {self.reference}: no byte arrived for {limit_s:g} s; try again later")
            await asyncio.sleep(min(left_s, limit_s / 10))

    def as_document(self) -> dict[str, object]:
        return {
            "reference": self.reference,
            "layers": [
                {"digest": layer.digest, "size": layer.size_bytes, "done": layer.done_bytes, "stage": layer.stage}
                for layer in self.layers
            ],
        }
