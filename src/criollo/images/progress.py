"""How far a pull is: for progress bars and for the time limit without progress."""

import time


class LayerProgress:
    """One layer: bytes that have arrived of `size_bytes` (compressed), and its stage."""

    __slots__ = ("digest", "done_bytes", "size_bytes", "stage")

    def __init__(self, digest: str, size_bytes: int) -> None:
        self.digest, self.size_bytes = digest, size_bytes
        self.done_bytes = 0
        self.stage = "waiting"  # waiting, pulling, here


class PullProgress:
    """One pull; written by its job and by transfer threads, read by whoever shows it."""

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self.layers: list[LayerProgress] = []
        self.changed_at = time.monotonic()
        self.outcome = ""  # "", "done" or the error

    def arrived(self, layer: LayerProgress, count: int) -> None:
        layer.done_bytes += count
        self.changed_at = time.monotonic()

    def as_document(self) -> dict[str, object]:
        return {
            "reference": self.reference,
            "outcome": self.outcome,
            "layers": [
                {"digest": layer.digest, "size": layer.size_bytes, "done": layer.done_bytes, "stage": layer.stage}
                for layer in self.layers
            ],
        }
