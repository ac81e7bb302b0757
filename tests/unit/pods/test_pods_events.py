"""Events: one for each change that clients know of, in order, with what was so at that moment."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from criollo.model.container import Container, ContainerConfig, ContainerState, ImageSpec
from criollo.model.ids import ContainerId, PodId, new_id
from criollo.model.pod import Pod, PodConfig, PodState
from criollo.pods.events import Event, EventKind, Events
from criollo.state.records import State

C, S, T, D = EventKind.CREATED, EventKind.STARTED, EventKind.STOPPED, EventKind.DELETED


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with contextlib.closing(State(tmp_path / "state.db")) as opened:
        yield opened


def events_of(state: State, **options: Any) -> Events:
    return Events(state, iter(range(1, 1 << 30)).__next__, **options)


def add_pod(state: State, name: str = "p") -> Pod:
    config = PodConfig(name=name, uid="u", namespace="n")
    made = Pod(id=PodId(new_id()), name=name, config=config, handler="", state=PodState.CREATING, created_ns=1)
    return state.pods.insert(made)


def add_container(state: State, pod: Pod, name: str = "c") -> Container:
    config = ContainerConfig(name=name, image=ImageSpec(image="i"))
    made = Container(
        id=ContainerId(new_id()),
        pod_id=pod.id,
        name=name,
        config=config,
        handler="",
        state=ContainerState.CREATING,
        created_ns=1,
    )
    return state.containers.insert(made)


def move(state: State, record: Any, *targets: Any) -> Any:
    rows: Any = state.pods if isinstance(record, Pod) else state.containers
    for target in targets:
        record = rows.put(msgspec.structs.replace(record, state=target))
    return record


@contextlib.asynccontextmanager
async def following(events: Events) -> AsyncIterator[list[Event]]:
    """What a client has got at the end of the block."""
    got: list[Event] = []

    async def read() -> None:
        async with contextlib.aclosing(events.follow()) as stream:
            async for event in stream:
                got.append(event)

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        await asyncio.sleep(0)
        yield got
        await asyncio.sleep(0)
        events.close()


def test_life_of_a_pod_with_a_container(state: State) -> None:
    async def main() -> list[Event]:
        async with following(events_of(state)) as got:
            pod = move(state, add_pod(state), PodState.READY)
            container = move(state, add_container(state, pod), ContainerState.CREATED, ContainerState.RUNNING)
            container = move(state, container, ContainerState.EXITED, ContainerState.REMOVING)
            state.containers.delete(container.id)
            move(state, pod, PodState.NOTREADY, PodState.REMOVING)
            state.pods.delete(pod.id)
        return got

    got = asyncio.run(main())
    pod_id = got[0].id
    container_id = got[2].id
    assert [(event.kind, event.id) for event in got] == [
        *((kind, pod_id) for kind in (C, S)),
        *((kind, container_id) for kind in (C, S, T, D)),
        *((kind, pod_id) for kind in (T, D)),
    ]
    assert [event.at_ns for event in got] == sorted(event.at_ns for event in got)
    assert {event.pod.id for event in got} == {pod_id}


def test_event_holds_what_was_so_when_it_happened(state: State) -> None:
    async def main() -> list[Event]:
        pod = move(state, add_pod(state), PodState.READY)
        other = move(state, add_container(state, pod, "other"), ContainerState.CREATED)
        async with following(events_of(state)) as got:
            first = move(state, add_container(state, pod), ContainerState.CREATED)
            move(state, other, ContainerState.RUNNING)
            move(state, first, ContainerState.RUNNING, ContainerState.EXITED)
        return got

    got = asyncio.run(main())
    states = [{each.name: each.state for each in event.containers} for event in got]
    created, running, exited = ContainerState.CREATED, ContainerState.RUNNING, ContainerState.EXITED
    assert states == [
        {"other": created, "c": created},
        {"other": running, "c": created},
        {"other": running, "c": running},
        {"other": running, "c": exited},
    ]


def test_event_holds_what_a_list_would_show(state: State) -> None:
    async def main() -> list[Event]:
        pod = move(state, add_pod(state), PodState.READY)
        lost = move(state, add_container(state, pod, "lost"), ContainerState.CREATED)
        state.containers.uncollected.add(lost.id)
        stuck = move(state, add_container(state, pod, "stuck"), ContainerState.CREATED, ContainerState.REMOVING)
        async with following(events_of(state)) as got:
            container = move(state, add_container(state, pod), ContainerState.CREATED)
            state.containers.put(msgspec.structs.replace(stuck, trouble="a full disk"))
            move(state, container, ContainerState.RUNNING)
        return got

    assert [[each.name for each in event.containers] for event in asyncio.run(main())] == [["c"], ["stuck", "c"]]


def test_what_was_never_seen_is_not_told(state: State) -> None:
    async def main() -> list[Event]:
        async with following(events_of(state)) as got:
            pod = add_pod(state)
            container = add_container(state, pod)
            move(state, container, ContainerState.REMOVING)
            state.containers.delete(container.id)
            move(state, pod, PodState.REMOVING)
            state.pods.delete(pod.id)
        return got

    assert asyncio.run(main()) == []


def test_what_an_earlier_daemon_made_is_told_when_it_goes(state: State) -> None:
    pod = move(state, add_pod(state), PodState.READY)
    container = move(state, add_container(state, pod), ContainerState.CREATED)

    async def main() -> list[Event]:
        async with following(events_of(state)) as got:
            move(state, container, ContainerState.REMOVING)
            state.containers.delete(container.id)
        return got

    assert [(event.kind, event.id) for event in asyncio.run(main())] == [(D, container.id)]


def test_change_without_a_new_state_is_no_event(state: State) -> None:
    async def main() -> list[Event]:
        pod = move(state, add_pod(state), PodState.READY)
        container = move(state, add_container(state, pod), ContainerState.CREATED)
        async with following(events_of(state)) as got:
            state.containers.put(msgspec.structs.replace(container, trouble="a full disk"))
        return got

    assert asyncio.run(main()) == []


def test_exit_is_told_even_if_its_row_cannot_be_written(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[Event]:
        pod = move(state, add_pod(state), PodState.READY)
        container = move(state, add_container(state, pod), ContainerState.CREATED, ContainerState.RUNNING)
        async with following(events_of(state)) as got:
            with monkeypatch.context() as patch:
                from criollo.errors import Exhausted

                def refuse(*_: object) -> None:
                    raise Exhausted("the disk is full")

                patch.setattr(state._database, "execute", refuse)
                state.containers.keep(msgspec.structs.replace(container, state=ContainerState.EXITED))
        return got

    assert [event.kind for event in asyncio.run(main())] == [T]


def test_every_client_gets_every_event(state: State) -> None:
    async def main() -> tuple[list[Event], list[Event]]:
        events = events_of(state)
        async with following(events) as first, following(events) as second:
            move(state, add_pod(state), PodState.READY)
        return first, second

    first, second = asyncio.run(main())
    assert first == second
    assert [event.kind for event in first] == [C, S]


def test_slow_client_loses_its_oldest_events_and_is_counted(state: State, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> tuple[Events, list[EventKind]]:
        events = events_of(state, limit=3)
        stream = events.follow()
        async with asyncio.TaskGroup() as group:
            group.create_task(_first(stream))
            await asyncio.sleep(0)
            pod = move(state, add_pod(state), PodState.READY)
        container = move(state, add_container(state, pod), ContainerState.CREATED, ContainerState.RUNNING)
        move(state, container, ContainerState.EXITED, ContainerState.REMOVING)
        state.containers.delete(container.id)
        kinds = [(await anext(stream)).kind for _ in range(3)]
        await stream.aclose()
        return events, kinds

    events, kinds = asyncio.run(main())
    assert kinds == [S, T, D]
    assert events.dropped == 2
    assert caplog.text.count("reads too slowly") == 1


async def _first(stream: Any) -> None:
    assert (await anext(stream)).kind is C


def test_nobody_is_kept_after_leaving(state: State) -> None:
    async def main() -> Events:
        events = events_of(state)
        async with following(events):
            pass
        return events

    events = asyncio.run(main())
    assert not events._followers


def test_client_that_stays_just_too_slow_is_told_of_once(state: State, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> Events:
        events = events_of(state, limit=3)
        stream = events.follow()
        async with asyncio.TaskGroup() as group:
            group.create_task(_first(stream))
            await asyncio.sleep(0)
            pod = move(state, add_pod(state), PodState.READY)
        for number in range(6):
            container = move(state, add_container(state, pod, f"c{number}"), ContainerState.CREATED, ContainerState.RUNNING)
            move(state, container, ContainerState.EXITED)
            await anext(stream)
        await stream.aclose()
        return events

    assert asyncio.run(main()).dropped > 6
    assert caplog.text.count("reads too slowly") == 1
