"""Spans on their way to a collector: OTLP over gRPC. Loaded only where tracing is on.

Spans go in batches; while the collector is away they wait in the tracer's bounded queue, and we try again after growing pauses.
A batch that it does not want, ever, is dropped, or it would keep all later ones.

Source: OTLP 1.x, section Failures: which codes are to be tried again.
"""

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from criollo import __version__
from criollo.aio import threads
from criollo.aio.background import Background
from criollo.config.telemetry import Tracing, parse_endpoint
from criollo.cri.client import Caller, connect_to
from criollo.errors import CriolloError, Damaged, Exhausted, TimedOut, Unavailable
from criollo.telemetry import hooks, trail
from criollo.telemetry.log import get_logger
from criollo.telemetry.otlp import EXPORT, Value, rejected_spans, request_bytes
from criollo.telemetry.seldom import Seldom
from criollo.telemetry.tracer import Tracer

if TYPE_CHECKING:
    import ssl

log = get_logger(__name__)

BATCH: Final = 512
PAUSE_S: Final = 2.0  # between batches, so that they are worth a message
_EXPORT_S: Final = 10.0
_BACKOFF_S: Final = (1.0, 30.0)
_FLUSH_S: Final = 2.0
_LATER: Final = (Unavailable, TimedOut, Exhausted, Damaged)


@asynccontextmanager
async def tracing_on(settings: Tracing) -> AsyncIterator[None]:
    """Make spans and send them while the block runs; at its end what waits is sent, if the collector takes it at once.

    Raises:
        Invalid: the endpoint is nonsense.
    """
    endpoint = parse_endpoint(settings.tracing_endpoint)
    rate = settings.tracing_sampling_rate_per_million
    tracer = Tracer(rate)
    tls = await threads.files(trusted) if endpoint.tls else None
    exporter = Exporter(tracer, endpoint.host, endpoint.port, tls=tls)
    hooks.tracer = tracer
    trail.listen(tracer)
    log.info("tracing", endpoint=settings.tracing_endpoint, per_million=rate)
    try:
        async with Background() as tasks:
            tasks.start(exporter.run(), name="spans")
            yield
    finally:
        hooks.tracer = None
        trail.leave(tracer)
        await exporter.flush()


def trusted() -> "ssl.SSLContext":
    """Trust in what the node trusts; SSL_CERT_FILE and SSL_CERT_DIR name another store."""
    import ssl  # and a trust store: 4 MiB

    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    return context


class Exporter:
    """Takes spans from the tracer's queue to one collector."""

    def __init__(
        self, tracer: Tracer, host: str, port: int, *, tls: "ssl.SSLContext | None" = None, pause_s: float = PAUSE_S
    ) -> None:
        self._tracer, self._pause_s = tracer, pause_s
        self._connect = functools.partial(connect_to, host, port, tls=tls)
        self._news = asyncio.Event()
        tracer.woken = self._news.set
        self._resource: Mapping[str, Value] = {
            "service.name": "crio",
            "service.version": __version__,
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
        }
        self._dropped_told = 0
        self._drops, self._refusals = Seldom(), Seldom()
        self._batch: list[bytes] = []  # not yet taken by the collector

    async def run(self) -> None:
        """Send until cancelled; without the collector wait, and say so once."""
        backoff_s = 0.0
        while True:
            await self._wait_for_spans()
            try:
                async with self._connect(limit_s=_EXPORT_S) as call:
                    while True:
                        await self._send(call)
                        if backoff_s:
                            log.info("the collector of traces takes spans again", dropped=self._tracer.dropped)
                            backoff_s = 0.0
                        await asyncio.sleep(self._pause_s)
                        await self._wait_for_spans()
            except CriolloError as error:
                if not backoff_s:
                    log.warning("spans cannot be sent; they wait, and the oldest are dropped", cause=error)
                backoff_s = min(max(2 * backoff_s, _BACKOFF_S[0]), _BACKOFF_S[1])
                await asyncio.sleep(backoff_s)

    async def flush(self) -> None:
        """Send what is left, if the collector takes it within two seconds."""
        with contextlib.suppress(CriolloError, TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                if self._batch or self._tracer.waiting:
                    async with self._connect(limit_s=_FLUSH_S) as call:
                        while self._batch or self._tracer.waiting:
                            await self._send(call)

    async def _wait_for_spans(self) -> None:
        while not self._batch and not self._tracer.waiting:
            self._news.clear()
            await self._news.wait()

    async def _send(self, call: Caller) -> None:
        waiting = self._tracer.waiting
        while waiting and len(self._batch) < BATCH:
            self._batch.append(waiting.popleft())
        try:
            answer = await call(EXPORT, request_bytes(self._resource, "criollo", __version__, self._batch), _EXPORT_S)
        except _LATER:
            raise
        except CriolloError as error:
            rejected, cause = len(self._batch), str(error)
        else:
            rejected, cause = rejected_spans(answer), ""
        self._batch.clear()
        if rejected and self._refusals.due():
            log.warning("the collector of traces has refused spans", spans=rejected, cause=cause)
        if self._tracer.dropped > self._dropped_told and self._drops.due():
            log.warning("spans were dropped", spans=self._tracer.dropped - self._dropped_told)
            self._dropped_told = self._tracer.dropped
