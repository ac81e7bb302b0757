"""What happened to a pod or container: `GET /explain/ID`, by id, the beginning of one, or name (`namespace/name` of a pod as
`namespace%2Fname`, or its name alone). A `telemetry.told.Explanation`; also of one that was removed within the last hour.
"""

from collections.abc import Iterator, Sequence

from criollo.admin.parameters import as_json
from criollo.aio.http_server import Reply, Request, Route
from criollo.errors import NotFound
from criollo.pods.history import History
from criollo.state.records import State
from criollo.telemetry.chronicle import Story
from criollo.telemetry.told import Explanation, Mentioned, StepTold, Waiting, WorkTold, bounded
from criollo.telemetry.trail import STAGE


def explain_routes(history: History, state: State) -> dict[tuple[str, str], Route]:
    """The route above, and `/explain/NAMESPACE/NAME`."""

    async def show(request: Request) -> Reply:
        return as_json(explain("/".join(request.words), history, state))

    return {("GET", "/explain/{}"): show, ("GET", "/explain/{}/{}"): show}


def explain(words: str, history: History, state: State) -> Explanation:
    """What is known of who is meant; of several the newest that still exists.

    Raises:
        NotFound: nobody is meant, or it was removed over an hour ago.
    """
    found = history.chronicle.find(words) if words else []
    if not found:
        raise NotFound("pod sandbox or container", words, "neither there nor removed within the last hour")
    story = found[-1]
    works = story.works()
    record = state.pods.get(story.subject.id) or state.containers.get(story.subject.id)
    return Explanation(
        kind=story.subject.kind,
        id=story.subject.id,
        name=bounded(story.subject.name),
        title=bounded(story.subject.title),
        pod_id=story.subject.pod_id,
        state=_state(story, state),
        trouble=bounded(record.trouble) if record is not None else "",
        moves=tuple(story.moves),
        works=tuple(works),
        waiting=tuple(_waiting(works)),
        last_words=_last_words(works),
        containers=_mentioned(history.chronicle.of_pod(story.subject.id), state),
        others=_mentioned(found[:-1][-20:], state),
    )


def _state(story: Story, state: State) -> str:
    record = state.pods.get(story.subject.id) or state.containers.get(story.subject.id)
    return "REMOVED" if record is None else str(record.state)


def _mentioned(stories: Sequence[Story], state: State) -> tuple[Mentioned, ...]:
    return tuple(
        Mentioned(kind=each.subject.kind, id=each.subject.id, title=bounded(each.subject.title), state=_state(each, state))
        for each in stories
    )


def _waiting(works: Sequence[WorkTold]) -> Iterator[Waiting]:
    """The steps that go on; the stage itself where nothing more is known."""
    for work in works:
        if work.seconds is not None:
            continue
        open_steps = [step for step in work.steps if step.seconds is None]
        stage = next((step.name for step in reversed(open_steps) if step.kind == STAGE), "")
        inner = [step for step in open_steps if step.kind != STAGE] or open_steps[-1:]
        if not inner:
            inner = [StepTold(kind=STAGE, name="start", after_s=0.0)]
        yield from (Waiting(work=work.what, stage=stage, step=step) for step in inner)


def _last_words(works: Sequence[WorkTold]) -> dict[str, str]:
    return {step.argv[0]: step.said for work in works for step in work.steps if step.said and step.argv}
