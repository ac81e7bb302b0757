"""`kpod registry explain`: why an image comes from where it comes from, and what each server says about it.

It reads the files that a pull reads and needs no daemon. What it cannot read for lack of rights it says.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from criollo.commandline import program
from criollo.config.settings import Settings
from criollo.errors import CriolloError, Denied, Forbidden, Invalid, NotFound, Unauthenticated, Unavailable
from criollo.kpod.remoteimage import opened_registry
from criollo.kpod.session import Options, load_settings
from criollo.kpod.text import document, table
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.telemetry import log

if TYPE_CHECKING:
    from criollo.registry.client import Registry
    from criollo.registry.endpoints import Endpoint
    from criollo.registry.explain import Explanation, Step
    from criollo.registry.logins import Logins
    from criollo.trust.policies import Policies

_WORDS = {
    NotFound: "not there",
    Unauthenticated: "login refused",
    Denied: "forbidden",
    Forbidden: "forbidden",
    Unavailable: "no answer",
}


class Answer(msgspec.Struct, frozen=True):
    """What an endpoint said when it was asked for the manifest."""

    status: str
    latency_ms: float
    digest: str = ""
    error: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """What the trust policy demands of a reference, and where it says so; `refusal` where no policy can be asked."""

    source: str = ""
    scope: str = ""
    demands: tuple[str, ...] = ()
    refusal: str = ""


class Found(NamedTuple):
    """All that is shown; the verdicts and answers are in the order of the meanings and their steps."""

    explanation: "Explanation"
    verdicts: list[Verdict]
    answers: list[list[Answer]]
    waiting: str = ""  # the file of credentials that waits for a pull in the namespace


@click.group("registry", cls=program.VerbGroup)
def registry() -> None:
    """Find out how registries are asked for images."""


@registry.command("explain")
@click.option("--probe", is_flag=True, help="Ask each server for the manifest, and tell what it answers.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@click.option("--namespace", default="", help="As for pods of this Kubernetes namespace: their policy, their credentials.")
@click.argument("image")
@click.pass_obj
def explain(options: Options, image: str, *, probe: bool, as_json: bool, namespace: str) -> int:
    """Show where IMAGE is looked for, in order: mirrors, rewritten names, credentials' sources, policy.

    No secret is shown, and no credential program is run unless --probe asks a registry that wants one.
    The status is 1 when a pull could not even begin, or, with --probe, when no server has the image.
    """
    log.set_up(options.log_level)
    settings = load_settings(options).settings
    found = asyncio.run(_gather(settings, image, probe=probe, namespace=namespace))
    if as_json:
        click.echo(document(_as_document(found)))
    else:
        click.echo(_as_text(found))
    meanings = zip(found.explanation.meanings, found.verdicts, strict=True)
    could = not found.explanation.refusal and any(not each.refusal and not verdict.refusal for each, verdict in meanings)
    return 0 if could and (not probe or any(each.status == "ok" for listed in found.answers for each in listed)) else 1


async def _gather(settings: Settings, image: str, *, probe: bool, namespace: str) -> Found:
    from criollo.engine.images import open_policies
    from criollo.registry import namespaced
    from criollo.registry.explain import explain as explain_name

    directory = Path(settings.image.namespaced_auth_dir) if settings.image.namespaced_auth_dir and namespace else None
    waiting = namespaced.look(directory, namespace, image) if directory is not None else None
    path = namespaced.place(directory, namespace, image) if directory is not None and waiting is not None else None
    async with opened_registry(settings) as client:
        explained = explain_name(client, image, waiting=waiting)
        refs = [Reference.parse(meaning.reference) for meaning in explained.meanings]
        policies = open_policies(settings, os.environ)
        verdicts = [_verdict(policies, ref, namespace) for ref in refs]
        answers = [
            await _ask_all(client, ref, waiting) if probe and not each.refusal else []
            for ref, each in zip(refs, explained.meanings, strict=True)
        ]
        return Found(explained, verdicts, answers, str(path or ""))


def _verdict(policies: "Policies", ref: Reference, namespace: str) -> Verdict:
    try:
        policy = policies.find(namespace)
    except Denied as error:
        return Verdict(refusal=str(error))
    scope, demands = policy.demands(ref)
    return Verdict(policy.source, scope, tuple(each.summary for each in demands))


async def _ask_all(client: "Registry", ref: Reference, waiting: "Logins | None") -> list[Answer]:
    """What each endpoint answers; one that has only content is asked by the digest that another told."""
    from criollo.registry.explain import CONTENT, all_endpoints

    endpoints = all_endpoints(client.hosts, ref)
    found: dict[int, Answer] = {}
    for at, (endpoint, what) in enumerate(endpoints):
        if what != CONTENT:
            found[at] = await _ask(client, ref, endpoint, waiting)
    told = next((Digest(each.digest) for each in found.values() if each.status == "ok" and _is_digest(each.digest)), None)
    for at, (endpoint, what) in enumerate(endpoints):
        if what == CONTENT and told is None:
            found[at] = Answer("not asked", 0, error="it has only content, and nobody told the digest")
        elif what == CONTENT and told is not None:
            found[at] = await _ask(client, ref.with_digest(told), endpoint, waiting)
    return [found[at] for at in range(len(endpoints))]


def _is_digest(text: str) -> bool:
    try:
        Digest(text)
    except Invalid:
        return False
    return True


async def _ask(client: "Registry", ref: Reference, endpoint: "Endpoint", waiting: "Logins | None") -> Answer:
    started = time.monotonic()
    try:
        latency_s, digest = await client.probe(ref, endpoint, waiting)
    except CriolloError as error:
        word = next((text for kind, text in _WORDS.items() if isinstance(error, kind)), "failed")
        return Answer(word, round((time.monotonic() - started) * 1000, 1), error=str(error))
    return Answer("ok", round(latency_s * 1000, 1), digest)


def _as_document(found: Found) -> dict[str, Any]:
    whole: dict[str, Any] = msgspec.to_builtins(found.explanation)
    whole["namespaced_auth_file"] = found.waiting
    for meaning, verdict, said in zip(whole["meanings"], found.verdicts, found.answers, strict=True):
        meaning["policy"] = msgspec.to_builtins(verdict)
        for step, answer in zip(meaning["steps"], said, strict=False):
            step["answer"] = msgspec.to_builtins(answer)
    return whole


def _as_text(found: Found) -> str:
    lines = [f"refused: {found.explanation.refusal}"] if found.explanation.refusal else []
    if found.waiting:
        lines.append(f"credentials for this pull alone: {found.waiting}")
    for meaning, verdict, said in zip(found.explanation.meanings, found.verdicts, found.answers, strict=True):
        lines += [""] if lines else []
        lines.append(meaning.reference + (f"  ({meaning.because})" if meaning.because else ""))
        lines.append(f"policy: {_policy_text(verdict)}")
        if meaning.refusal:
            lines.append(f"refused: {meaning.refusal}")
            continue
        lines.append(_steps_text(meaning.steps, said))
        lines += [f"problem of {step.url}: {text}" for step in meaning.steps for text in step.problems]
        lines += [f"{step.url}: {answer.error}" for step, answer in zip(meaning.steps, said, strict=False) if answer.error]
    return "\n".join(lines)


def _policy_text(verdict: Verdict) -> str:
    return verdict.refusal or f"{verdict.source}, scope {verdict.scope!r} demands {', '.join(verdict.demands)}"


def _steps_text(steps: Sequence["Step"], said: list[Answer]) -> str:
    heads = ["TRY", "KIND", "ASKED FOR", "WHERE", "ENCRYPTION", "CREDENTIALS", "PROXY", "BECAUSE"]
    heads += ["ANSWER", "TIME", "DIGEST"] if said else []
    rows = []
    for at, step in enumerate(steps):
        row = [str(at + 1), step.kind, step.asked_for, step.url, step.encryption]
        row += [step.credential or "none", step.proxy or "none", step.because]
        if said:
            row += [said[at].status, f"{said[at].latency_ms:g} ms", said[at].digest]
        rows.append(row)
    return table(heads, rows)
