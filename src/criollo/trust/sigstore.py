"""Signatures of sigstore: what is asked of the child that checks them, and the asking.

The bytes of strangers and the library that reads them stay out of the daemon: `trust.verifying` runs in a process of its own
for one requirement, with all signatures of an image at once, and answers for each. The daemon never imports `cryptography`.
"""

import os
import sys
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from criollo.aio import process, threads
from criollo.errors import Denied, ToolFailed, explain
from criollo.oci.signature import SIGSTORE_TYPE, Signature, SignatureKind
from criollo.trust.requirements import Requirement, Sources

LIMIT_S: Final = 30.0
MAX_REQUEST_BYTES: Final = 64 << 20
MAX_ANSWER_BYTES: Final = 4 << 20
SIGNATURE_ANNOTATION: Final = "dev.cosignproject.cosign/signature"
_CERTIFICATE: Final = "dev.sigstore.cosign/certificate"
_CHAIN: Final = "dev.sigstore.cosign/chain"
_LOG_ENTRY: Final = "dev.sigstore.cosign/bundle"
_START: Final = "import sys; sys.path[:] = sys.argv[1:]; from criollo.trust.verifying import main; main()"


class Doubtful(msgspec.Struct, frozen=True, kw_only=True):
    """One signature, as its annotations have it; absent ones are None."""

    payload: bytes
    signature: str | None = None
    certificate: str | None = None
    chain: str | None = None
    log_entry: str | None = None


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is asked. `now` is in seconds since the epoch; `fulcio` and `pki` say which kind of roots those are."""

    signatures: tuple[Doubtful, ...]
    now: float
    keys: tuple[bytes, ...] = ()
    rekor: tuple[bytes, ...] | None = None
    roots: tuple[bytes, ...] = ()
    intermediates: tuple[bytes, ...] = ()
    kind: str = "keys"  # or fulcio, pki
    issuer: str = ""
    email: str = ""
    hostname: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Of one signature: why it is not good, or empty and until when it stays good (seconds since the epoch; 0: for ever)."""

    reason: str = ""
    until: float = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One outcome per signature; `trouble` says why nothing could be checked at all."""

    outcomes: tuple[Outcome, ...] = ()
    trouble: str = ""


def is_signature(signature: Signature) -> bool:
    """Whether it is a sigstore signature, and no other attachment."""
    return signature.kind is SignatureKind.SIGSTORE and signature.media_type == SIGSTORE_TYPE


async def verify(requirement: Requirement, signatures: Sequence[Signature]) -> Sequence[Outcome]:
    """What is to be thought of each signature.

    Raises:
        Denied: the keys or roots of the requirement cannot be used.
        TimedOut, ToolFailed: the child did not do its work.
    """
    task = await _task(requirement, signatures)
    raw = msgspec.json.encode(task)
    argv = [sys.executable, "-I", "-S", "-B", "-c", _START, *(path for path in sys.path if os.path.isabs(path))]
    program, what = process.Program(argv), "cannot check sigstore signatures"
    ended = await process.run(program, what=what, timeout_s=LIMIT_S, stdin=raw, limit_bytes=MAX_ANSWER_BYTES)
    try:
        answer = msgspec.json.decode(ended.stdout, type=Answer)
    except msgspec.MsgspecError as error:
        raise ToolFailed("cannot check sigstore signatures", argv[:1], 0, f"its answer is malformed: {error}") from error
    if answer.trouble:
        raise Denied(answer.trouble)
    if len(answer.outcomes) != len(signatures):
        raise ToolFailed("cannot check sigstore signatures", argv[:1], 0, "its answer does not fit the question")
    return answer.outcomes


async def _task(requirement: Requirement, signatures: Sequence[Signature]) -> Task:
    fulcio, pki = requirement.fulcio, requirement.pki
    asked = Task(
        signatures=tuple(_doubtful(each) for each in signatures),
        now=time.time(),
        keys=await read_sources(requirement.keys),
        rekor=await read_sources(requirement.rekor) if requirement.rekor is not None else None,
    )
    change = msgspec.structs.replace
    if fulcio is not None:
        roots = await read_sources(fulcio.authorities)
        return change(asked, kind="fulcio", roots=roots, issuer=fulcio.issuer, email=fulcio.email)
    if pki is not None:
        roots, between = await read_sources(pki.roots), await read_sources(pki.intermediates)
        return change(asked, kind="pki", roots=roots, intermediates=between, email=pki.email, hostname=pki.hostname)
    return asked


async def read_sources(sources: Sources) -> tuple[bytes, ...]:
    """The keys or certificates of a requirement.

    Raises:
        Invalid, HostFailed: a file of them cannot be read.
    """
    if not sources.paths:
        return sources.blobs
    with explain("read the keys of the signature policy"):
        return tuple(await threads.files(sources.read))


def _doubtful(signature: Signature) -> Doubtful:
    said = signature.annotations
    return Doubtful(
        payload=signature.payload,
        signature=said.get(SIGNATURE_ANNOTATION),
        certificate=said.get(_CERTIFICATE),
        chain=said.get(_CHAIN),
        log_entry=said.get(_LOG_ENTRY),
    )
