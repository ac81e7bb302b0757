"""`kpod registry explain`: why an image comes from where it comes from, and what each server says about it.

It reads the files that a pull reads and needs no daemon. What it cannot read for lack of rights it says.
"""

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import click
import msgspec

from criollo.config.settings import Settings
from criollo.errors import CriolloError, Denied, NotFound, Unauthenticated, Unavailable
from criollo.kpod.remoteimage import opened_registry
from criollo.kpod.session import Options, load_settings
from criollo.kpod.text import document, table
from criollo.oci.reference import Reference
from criollo.telemetry import log

if TYPE_CHECKING:
    from criollo.registry.client import Registry
    from criollo.registry.endpoints import Endpoint
    from criollo.registry.explain import Explanation
    from criollo.trust.policies import Policies

_WORDS = {
    NotFound: "not there",
    Unauthenticated: "login refused",
    Denied: "forbidden",
    Unavailable: "no answer",
}


class Answer(msgspec.Struct, frozen=True):
    """What an endpoint said when it was asked for the manifest."""

    status: str
    latency_ms: float
    digest: str = ""
    error: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """What the trust policy demands of a reference, and where it says so."""

    source: str
    scope: str
    demands: tuple[str, ...]


@click.group("registry")
def registry() -> None:
    """Find out how registries are asked for images."""


@registry.command("explain")
@click.option("--probe", is_flag=True, help="Ask each server for the manifest, and tell what it answers.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@click.option("--namespace", default="", help="Show the trust policy for pods of this Kubernetes namespace.")
@click.argument("image")
@click.pass_obj
def explain(options: Options, image: str, *, probe: bool, as_json: bool, namespace: str) -> int:
    """Show where IMAGE is looked for, in order: mirrors, rewritten names, credentials' sources, policy.

    No secret is shown, and no credential program is run unless --probe asks a registry that wants one.
    The status is 1 when a pull could not even begin, or, with --probe, when no server has the image.
    """
    log.set_up(options.log_level)
    settings = load_settings(options).settings
    found, verdicts, answers = asyncio.run(_gather(settings, image, probe=probe, namespace=namespace))
    if as_json:
        click.echo(document(_as_document(found, verdicts, answers)))
    else:
        click.echo(_as_text(found, verdicts, answers))
    could = not found.refusal and any(not meaning.refusal for meaning in found.meanings)
    return 0 if could and (not probe or any(each.status == "ok" for listed in answers for each in listed)) else 1


async def _gather(
    settings: Settings, image: str, *, probe: bool, namespace: str
) -> tuple["Explanation", list[Verdict | None], list[list[Answer]]]:
    from criollo.engine.images import open_policies
    from criollo.registry.explain import explain as explain_name

    async with opened_registry(settings) as client:
        found = explain_name(client, image)
        refs = [Reference.parse(meaning.reference) for meaning in found.meanings]
        policies = open_policies(settings, os.environ)
        verdicts = [_verdict(policies, ref, namespace) for ref in refs]
        answers = [
            await _ask_all(client, ref) if probe and not each.refusal else []
            for ref, each in zip(refs, found.meanings, strict=True)
        ]
        return found, verdicts, answers


def _verdict(policies: "Policies", ref: Reference, namespace: str) -> "Verdict | None":
    policy = policies.find(namespace)
    scope, demands = policy.demands(ref)
    if not policy.fingerprint:
        return None
    return Verdict(policy.source, scope, tuple(each.summary for each in demands))


async def _ask_all(client: "Registry", ref: Reference) -> list[Answer]:
    return [await _ask(client, ref, endpoint) for endpoint in client.hosts.endpoints(ref)]


async def _ask(client: "Registry", ref: Reference, endpoint: "Endpoint") -> Answer:
    started = time.monotonic()
    try:
        latency_s, digest = await client.probe(ref, endpoint)
    except CriolloError as error:
        word = next((text for kind, text in _WORDS.items() if isinstance(error, kind)), "failed")
        return Answer(word, round((time.monotonic() - started) * 1000, 1), error=str(error))
    return Answer("ok", round(latency_s * 1000, 1), digest)


def _as_document(found: "Explanation", verdicts: list[Verdict | None], answers: list[list[Answer]]) -> dict[str, Any]:
    whole: dict[str, Any] = msgspec.to_builtins(found)
    for meaning, verdict, said in zip(whole["meanings"], verdicts, answers, strict=True):
        meaning["policy"] = None if verdict is None else msgspec.to_builtins(verdict)
        for step, answer in zip(meaning["steps"], said, strict=False):
            step["answer"] = msgspec.to_builtins(answer)
    return whole


def _as_text(found: "Explanation", verdicts: list[Verdict | None], answers: list[list[Answer]]) -> str:
    lines = [f"refused: {found.refusal}"] if found.refusal else []
    for meaning, verdict, said in zip(found.meanings, verdicts, answers, strict=True):
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


def _policy_text(verdict: Verdict | None) -> str:
    if verdict is None:
        return "none on this host, all images are accepted"
    return f"{verdict.source}, scope {verdict.scope!r} demands {', '.join(verdict.demands)}"


def _steps_text(steps: Any, said: list[Answer]) -> str:
    heads = ["TRY", "KIND", "WHERE", "ENCRYPTION", "CREDENTIALS", "PROXY", "BECAUSE"] + (
        ["ANSWER", "TIME", "DIGEST"] if said else []
    )
    rows = []
    for at, step in enumerate(steps):
        row = [str(at + 1), step.kind, step.url, step.encryption]
        row += ["; ".join(step.credentials) or "none", step.proxy or "none", step.because]
        if said:
            row += [said[at].status, f"{said[at].latency_ms:g} ms", said[at].digest]
        rows.append(row)
    return table(heads, rows)
