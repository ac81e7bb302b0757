"""A client of registries for one piece of work, in a loop of its own; and one that forgets."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from support.waiting import run
from urllib3.response import BaseHTTPResponse

from criollo.registry.answers import Question
from criollo.registry.client import Registry
from criollo.registry.connections import Limits
from criollo.registry.exchange import Exchange
from criollo.registry.hosts import Hosts

T = TypeVar("T")


def ask(
    hosts: Hosts,
    work: Callable[[Registry], Awaitable[T]],
    *,
    limits: Limits | None = None,
    environ: Mapping[str, str] | None = None,
    auth_paths: Sequence[Path] = (),
) -> T:
    """What `work` gives, which is handed a client for these hosts; fails after a minute, however the client waits."""

    async def main() -> T:
        client = Registry(hosts, user_agent="criollo/test", limits=limits, environ=environ or {}, auth_paths=auth_paths)
        try:
            return await work(client)
        finally:
            await client.close()

    return run(main())


def forget_schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on each answer's host is forgotten at once, as by another transfer whose connection to it broke then."""
    honest = Exchange.ask

    def ask_and_forget(self: Exchange, question: Question) -> BaseHTTPResponse:
        answer = honest(self, question)
        self._schemes.clear()
        return answer

    monkeypatch.setattr(Exchange, "ask", ask_and_forget)
