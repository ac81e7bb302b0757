"""How far pulls and pushes are: for progress bars, for the time limit without progress, for whoever wants to end one."""

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Hashable, Iterator
from typing import Final, Protocol

from criollo.errors import CriolloError, TimedOut
from criollo.model.transfer import Event, LayerState, TransferState

REMEMBERED: Final = 16  # that have ended: who asks late still learns how
EVERY_S: Final = 0.1
TIMED_OUT: Final = "no byte arrived for {0:g} s (Timed out on waiting up to {0:g}s, context canceled)"  # CRI-O's words, too


class HasStage(Protocol):
    """The job behind a transfer."""

    @property
    def key(self) -> Hashable: ...
    @property
    def at_stage(self) -> str: ...


class BlobSource(Protocol):
    """What serves a blob."""

    @property
    def name(self) -> str: ...


class NamedBlob(Protocol):
    """What is served."""

    @property
    def digest(self) -> str: ...


class LayerProgress:
    """One layer: bytes that have gone over of `size_bytes` (compressed), its stage, who serves it."""

    __slots__ = ("connections", "digest", "done_bytes", "size_bytes", "source", "stage")

    def __init__(self, digest: str, size_bytes: int) -> None:
        self.digest, self.size_bytes = digest, size_bytes
        self.done_bytes = 0
        self.stage = "waiting"  # waiting, pulling, unpacking, here; of a push packing, pushing, there
        self.connections = 0
        self.source = ""

    def state(self) -> LayerState:
        return LayerState(
            digest=self.digest,
            size=self.size_bytes,
            done=self.done_bytes,
            stage=self.stage,
            retries=max(0, self.connections - 1),
            source=self.source,
        )


class Progress:
    """One running pull or push; written by its job and by transfer threads, read by whoever shows it."""

    def __init__(self, reference: str) -> None:
        self.id = secrets.token_hex(6)
        self.reference = reference
        self.job: HasStage | None = None
        self.layers: list[LayerProgress] = []
        self.blobs: tuple[str, ...] = ()  # names of the layers that it makes
        self.changed_at = time.monotonic()
        self.asks = False  # a document is expected
        self.image = ""
        self.error = ""
        self.over = asyncio.Event()

    def arrived(self, layer: LayerProgress, count: int) -> None:
        layer.done_bytes += count
        self.changed_at = time.monotonic()

    def noticed(self) -> None:
        """A piece of a document has come."""
        self.changed_at = time.monotonic()

    def came_from(self, blob: NamedBlob, source: BlobSource) -> None:
        """A server has begun to send a blob."""
        for layer in self.layers:
            if layer.digest == str(blob.digest):
                layer.connections += 1
                layer.source = source.name

    async def watch(self, limit_s: float) -> None:
        """End only by an error: when no byte has come for `limit_s` seconds while one was expected.

        Raises:
            TimedOut: so it is.
        """
        while True:
            if not self.asks and not any(layer.stage == "pulling" for layer in self.layers):
                self.changed_at = time.monotonic()  # in a queue, or busy with the disk
            left_s = self.changed_at + limit_s - time.monotonic()
            if left_s <= 0:
                raise TimedOut(f"cannot pull {self.reference}: {TIMED_OUT.format(limit_s)}; try again later")
            await asyncio.sleep(min(left_s, limit_s / 10))

    def state(self) -> TransferState:
        return TransferState(
            id=self.id,
            reference=self.reference,
            stage=self.job.at_stage if self.job is not None else "",
            image=self.image,
            error=self.error,
            layers=[layer.state() for layer in self.layers],
        )


class Board:
    """The transfers that run, and the few that ended last."""

    def __init__(self) -> None:
        self._running: dict[str, Progress] = {}
        self._ended: deque[Progress] = deque(maxlen=REMEMBERED)

    def running(self) -> list[Progress]:
        return list(self._running.values())

    def find(self, transfer_id: str) -> Progress | None:
        """The one that has the id, running or ended."""
        return self._running.get(transfer_id) or next((each for each in self._ended if each.id == transfer_id), None)

    @contextlib.contextmanager
    def shown(self, progress: Progress) -> Iterator[None]:
        """List a transfer while the block runs. The block says what became of it, or an error does."""
        self._running[progress.id] = progress
        try:
            yield
        except CriolloError as error:
            progress.error = progress.error or str(error)
            raise
        except BaseException:
            progress.error = progress.error or "cancelled"
            raise
        finally:
            del self._running[progress.id]
            self._ended.append(progress)
            progress.over.set()


async def changes(progress: Progress, *, every_s: float = EVERY_S) -> AsyncGenerator[list[Event], None]:
    """What has changed since the last look, at most every `every_s` seconds; the newest state, never a queue of old ones.

    So a reader that takes its time costs no memory and holds nobody up. It ends after `result` or `error`.
    """
    stage = ""
    told: dict[int, LayerState] = {}
    news = [Event(type="begin", id=progress.id, reference=progress.reference)]
    while True:
        is_over = progress.over.is_set()
        state = progress.state()
        if state.stage != stage:
            stage = state.stage
            news.append(Event(type="stage", stage=stage))
        for place, layer in enumerate(state.layers):
            if told.get(place) != layer:
                told[place] = layer
                news.append(Event(type="layer", place=place, layer=layer))
        if is_over:
            last = Event(type="error", error=state.error) if state.error else Event(type="result", image=state.image)
            yield [*news, last]
            return
        if news:
            yield news
            news = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await progress.over.wait()
