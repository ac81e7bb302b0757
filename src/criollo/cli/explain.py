"""`crio explain`: what happened to a pod or container, asked of the running daemon."""

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import click
import msgspec

from criollo.cli.ask import answers, ask
from criollo.errors import Unavailable
from criollo.telemetry.told import Explanation, Mentioned, StepTold, WorkTold


def run(listen: Path, words: str, *, as_json: bool) -> None:
    """Ask and print.

    Raises:
        CriolloError: there is no daemon, or it knows nobody of that name.
    """
    if not answers(listen):
        raise Unavailable(f"cannot explain {words}: no daemon listens at {listen}; what happened is known to it alone")
    body = ask(listen, "GET", f"/explain/{quote(words, safe='/')}", {})
    if as_json:
        click.echo(msgspec.json.format(body, indent=2))
        return
    for line in lines(msgspec.json.decode(body, type=Explanation)):
        click.echo(line)


def lines(told: Explanation) -> Iterator[str]:
    """What a person reads: who, what is waited for, then all that happened."""
    yield f"{told.kind} {told.title} ({told.id}): {told.state}"
    if told.pod_id:
        yield f"  of pod sandbox {told.pod_id}"
    if told.trouble:
        yield f"  TROUBLE: {told.trouble}"
    for waiting in told.waiting:
        yield f"  WAITING: {waiting.work}, stage {waiting.stage or 'start'}: {_what(waiting.step)}"
    for at_ns, line in sorted([*_moves(told), *_works(told)], key=lambda pair: pair[0]):
        yield f"{_clock(at_ns)}  {line}"
    if told.last_words:
        yield "last words:"
        yield from (f"  {program}: {text}" for program, text in told.last_words.items())
    for title, mentioned in (("containers:", told.containers), ("the same words also mean:", told.others)):
        if mentioned:
            yield title
            yield from _mentioned(mentioned)


def _moves(told: Explanation) -> Iterator[tuple[int, str]]:
    for move in told.moves:
        yield move.at_ns, move.state + (f": {move.text}" if move.text else "")


def _works(told: Explanation) -> Iterator[tuple[int, str]]:
    for work in told.works:
        yield work.begun_ns, "\n".join(_work(work))


def _work(work: WorkTold) -> Iterator[str]:
    ended = "goes on" if work.seconds is None else _seconds(work.seconds)
    yield f"{work.what}: {ended}" + (f": FAILED: {work.error}" if work.error else "")
    for step in work.steps:
        indent = " " * (18 if step.kind == "stage" else 20)
        took = "goes on" if step.seconds is None else _seconds(step.seconds)
        yield f"{indent}+{_seconds(step.after_s):>8}  {took:>8}  {_what(step)}"
        if step.said and step.status:
            yield f"{indent}{'':>21}it said: {step.said}"
    if work.left_out:
        yield f"{'':18}and {work.left_out} more"


def _what(step: StepTold) -> str:
    process = f", process {step.pid}: {' '.join(step.argv)}" if step.argv else ""
    status = f", exit status {step.status}" if step.status else ""
    return f"{step.name}{process}{status}"


def _mentioned(mentioned: tuple[Mentioned, ...]) -> Iterator[str]:
    for each in mentioned:
        yield f"  {each.kind} {each.title} ({each.id}): {each.state}"


def _clock(at_ns: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at_ns // 10**9)) + f".{at_ns // 10**6 % 1000:03d}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f}ms" if seconds < 1 else f"{seconds:.2f}s"
