"""Trails: what work did, found from anywhere below it."""

import asyncio

from criollo.telemetry import trail
from criollo.telemetry.trail import MAX_STEPS, PROGRAM, STAGE, WAIT, Trail


def test_next_stage_ends_the_one_before() -> None:
    with Trail("job", "key") as work:
        work.stage("one")
        work.stage("two")
        assert [bool(step.ended) for step in work.steps] == [True, False]
    assert [(step.kind, step.name) for step in work.steps] == [(STAGE, "one"), (STAGE, "two")]
    assert all(step.ended for step in work.steps)


def test_steps_of_tasks_below_are_found_and_not_those_beside() -> None:
    async def below() -> None:
        with trail.waiting("a path"):
            await asyncio.sleep(0)

    async def work(key: str) -> Trail:
        with Trail("job", key) as mine:
            async with asyncio.TaskGroup() as group:
                group.create_task(below())
        return mine

    async def both() -> list[Trail]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work(key)) for key in ("a", "b")]
        return [task.result() for task in tasks]

    assert [[step.kind for step in each.steps] for each in asyncio.run(both())] == [[WAIT], [WAIT]]
    assert trail.current() is None


def test_what_comes_after_the_end_is_no_part() -> None:
    with Trail("job", "key") as work:
        late = trail.current()
    assert late is work
    work.stage("late")
    assert work.steps == []
    assert work.left_out == 1


def test_steps_are_bounded() -> None:
    with Trail("job", "key") as work:
        for at in range(MAX_STEPS + 5):
            trail.program(["/bin/true"], at + 1).end(0)
    assert len(work.steps) == MAX_STEPS
    assert work.left_out == 5


def test_only_the_first_part_of_a_key_is_its_name() -> None:
    assert Trail("pull", ("reference", "credentials")).name == "reference"


def test_first_word_on_the_end_counts() -> None:
    step = trail.program(["/bin/true"], 7)
    assert step.kind == PROGRAM
    step.end(1, "first")
    step.end(0, "second")
    assert (step.status, step.said) == (1, "first")
    work = Trail("job", "key")
    work.fail(KeyError("first"))
    work.fail(ValueError("second"))
    assert (work.error, work.error_kinds) == ("'first'", ("KeyError", "LookupError"))


def test_listeners_hear_of_trails_and_their_parents_until_they_leave() -> None:
    class Listener:
        def __init__(self) -> None:
            self.heard: list[tuple[str, str, str]] = []

        def begun(self, work: Trail) -> None:
            self.heard.append(("begun", work.name, work.parent.name if work.parent else ""))

        def ended(self, work: Trail) -> None:
            self.heard.append(("ended", work.name, work.parent.name if work.parent else ""))

    listener = Listener()
    trail.listen(listener)
    with Trail("job", "outer"), Trail("job", "inner"):
        pass
    trail.leave(listener)
    trail.leave(listener)
    with Trail("job", "unheard"):
        pass
    assert listener.heard == [
        ("begun", "outer", ""),
        ("begun", "inner", "outer"),
        ("ended", "inner", "outer"),
        ("ended", "outer", ""),
    ]


def test_classes_of_an_error_and_of_its_causes_are_kept() -> None:
    work = Trail("job", "key")
    outer = OSError("cannot")
    outer.__cause__ = ConnectionRefusedError(111, "refused")
    work.fail(outer)
    assert work.error_kinds == ("OSError", "ConnectionRefusedError", "ConnectionError", "OSError")
