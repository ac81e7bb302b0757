"""What is remembered of pods and containers, for how long, and in how much memory."""

from collections.abc import Iterator

import pytest

from criollo.telemetry import trail
from criollo.telemetry.chronicle import KEPT_S, MOVES, WORKS, Chronicle, Subject
from criollo.telemetry.trail import CALL, Trail, program


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def chronicle(clock: Clock) -> Iterator[Chronicle]:
    made = Chronicle(clock=clock, limit_bytes=200_000)
    trail.listen(made)
    yield made
    trail.leave(made)


def subject(record_id: str, *, name: str = "", pod_id: str = "") -> Subject:
    return Subject(record_id, "container", f"k8s_{name or record_id}_x", name or record_id, pod_id)


def live(chronicle: Chronicle, record_id: str) -> None:
    """Create and remove."""
    with Trail("create container", "its name"):
        chronicle.made(subject(record_id))
    chronicle.gone(record_id)


def test_job_that_made_it_and_jobs_named_by_it_are_its_works(chronicle: Chronicle) -> None:
    with Trail("create container", "its name") as work:
        work.stage("container storage")
        chronicle.made(subject("c1"))
        assert [told.seconds for told in chronicle.find("c1")[0].works()] == [None]
    with Trail("start container", "c1"):
        pass
    with Trail("start container", "c2"):
        pass
    chronicle.moved("c1", "RUNNING")
    [story] = chronicle.find("c1")
    assert [told.what for told in story.works()] == ["create container", "start container"]
    assert [move.state for move in story.moves] == ["CREATING", "RUNNING"]


def test_call_is_no_work(chronicle: Chronicle) -> None:
    with Trail(CALL, "/method"):
        chronicle.made(subject("c1"))
    assert chronicle.find("c1")[0].works() == []


def test_removed_one_is_kept_for_an_hour(chronicle: Chronicle, clock: Clock) -> None:
    live(chronicle, "c1")
    clock.now = KEPT_S - 1
    assert len(chronicle.find("c1")) == 1
    clock.now = KEPT_S + 1
    assert chronicle.find("c1") == []
    assert chronicle.size == 0


def test_works_and_moves_of_one_are_bounded_and_the_first_work_stays(chronicle: Chronicle) -> None:
    with Trail("create container", "its name"):
        chronicle.made(subject("c1"))
    for _ in range(3 * WORKS):
        with Trail("start container", "c1"):
            pass
    for _ in range(3 * MOVES):
        chronicle.moved("c1", "RUNNING")
    [story] = chronicle.find("c1")
    assert len(story.past) == WORKS
    assert story.works()[0].what == "create container"
    assert len(story.moves) == MOVES


def test_memory_is_bounded_and_the_oldest_removed_go_first(chronicle: Chronicle) -> None:
    chronicle.know(subject("stays"))
    for at in range(1000):
        with Trail("create container", "its name"):
            chronicle.made(subject(f"c{at}"))
            program(["/bin/x"] * 60, 1).end(1, "y" * 1900)
        chronicle.gone(f"c{at}")
        assert chronicle.size <= 200_000
    assert chronicle.find("c0") == []
    assert len(chronicle.find("c999")) == 1
    assert len(chronicle.find("stays")) == 1


def test_memory_is_bounded_by_those_that_exist_too(chronicle: Chronicle) -> None:
    for at in range(1000):
        with Trail("create container", "its name"):
            chronicle.made(subject(f"c{at}"))
            program(["/bin/x"] * 60, 1).end(1, "y" * 1900)
        assert chronicle.size <= 200_000
    assert len(chronicle.find("c999")[0].works()) == 1
    for at in range(1000):
        chronicle.gone(f"c{at}")
    assert chronicle.size <= 200_000


def test_names_and_beginnings_of_ids_find_it_and_those_that_exist_come_last(chronicle: Chronicle) -> None:
    chronicle.know(Subject("aa1", "pod sandbox", "k8s_web_ns_u_0", "ns/web", ""))
    chronicle.gone("aa1")
    chronicle.know(Subject("aa2", "pod sandbox", "k8s_web_ns_u_1", "ns/web", ""))
    chronicle.know(Subject("ab3", "container", "k8s_c_web_ns_u_1", "c", "aa2"))

    def ids(words: str) -> list[str]:
        return [story.subject.id for story in chronicle.find(words)]

    assert ids("ns/web") == ids("web") == ids("aa") == ["aa1", "aa2"]
    assert ids("k8s_web_ns_u_0") == ["aa1"]
    assert ids("ab") == ids("c") == ["ab3"]
    assert ids("zz") == []
    assert [story.subject.id for story in chronicle.of_pod("aa2")] == ["ab3"]
