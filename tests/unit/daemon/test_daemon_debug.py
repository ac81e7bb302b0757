"""Stacks, memory and profiles over HTTP."""

import asyncio

import pytest

from criollo.aio import threads
from criollo.aio.http_server import Reply, Request, Routes
from criollo.daemon.debug import debug_routes, pprof_routes
from criollo.errors import Invalid, NotFound


def ask(routes: Routes, path: str, *words: str, **query: str) -> Reply:
    async def main() -> Reply:
        request = Request(
            method="GET", path=path, query={name: [text] for name, text in query.items()}, words=words, headers={}
        )
        try:
            return await routes["GET", path](request)
        finally:
            threads.close()

    return asyncio.run(main())


def pprof(name: str, **query: str) -> str:
    return ask(pprof_routes(), "/debug/pprof/{}", name, **query).body.decode()


def test_stacks_and_memory_are_always_told() -> None:
    routes = debug_routes(with_profiles=False)
    assert b"goroutine thread" in ask(routes, "/debug/goroutines").body
    assert b"goroutine task" in ask(routes, "/debug/goroutines").body
    assert b"builtins.dict" in ask(routes, "/debug/heap").body


def test_profiles_are_told_on_the_socket_only_where_they_are_switched_on() -> None:
    off = ask(debug_routes(with_profiles=False), "/debug/pprof/{}", "goroutine")
    assert (off.status, b"--enable-profile-unix-socket" in off.body) == (404, True)
    on = ask(debug_routes(with_profiles=True), "/debug/pprof/{}", "goroutine")
    assert (on.status, b"goroutine task" in on.body) == (200, True)


def test_index_names_what_there_is() -> None:
    index = ask(pprof_routes(), "/debug/pprof/").body.decode().split()
    assert index == ["/debug/pprof/", "goroutine", "threadcreate", "heap", "allocs", "profile", "cmdline"]
    for name in index[1:-2]:
        assert pprof(name)


def test_threads_alone_are_told_without_tasks() -> None:
    assert "goroutine task" not in pprof("threadcreate")


def test_profile_of_a_second_has_samples() -> None:
    assert pprof("profile", seconds="1").startswith("# profile by samples: ")


@pytest.mark.parametrize("seconds", ["0", "-1", "301", "x", "", "1.5", "1" * 40, "٣"])
def test_profile_of_no_sensible_time_is_refused(seconds: str) -> None:
    with pytest.raises(Invalid, match="seconds"):
        pprof("profile", seconds=seconds)


def test_what_there_is_not_is_named_with_what_there_is() -> None:
    with pytest.raises(NotFound, match="goroutine, threadcreate"):
        pprof("mutex")
