"""Whether an image may be used: the demands of the policy against the signatures that are kept of it.

A verdict is about one manifest digest. It is remembered by all that it depends on (policy, key files, reference, manifest,
signatures) and for as long as keys stay valid, so judging an accepted image again costs a few stat calls.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from criollo.errors import Denied, HostFailed, Invalid, printable
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.oci.signature import MAX_SIGNATURES, Signature, SignatureKind, parse_blob
from criollo.telemetry.log import get_logger
from criollo.trust.places import FilePlace
from criollo.trust.policies import Policies, Stamp, look
from criollo.trust.policy import Policy
from criollo.trust.requirements import ACCEPT, REJECT, SIGNED_BY, SIGSTORE_SIGNED, Requirement

log = get_logger(__name__)

_MAX_VERDICTS: Final = 4096
_MAX_REASONS: Final = 5
_REFUSED_S: Final = 30.0  # a refusal is found anew after this: what it rests on may be a clock


class Evidence(msgspec.Struct, frozen=True):
    """A manifest by its digest, and the blobs of the signatures that are kept of it."""

    digest: Digest
    blobs: tuple[bytes, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Tells this evidence from other."""
        return f"{self.digest} {' '.join(Digest.of(blob) for blob in self.blobs)}"


class Case(NamedTuple):
    """What is judged: an image by the name it is wanted under, or without one, and what proves where it comes from.

    `evidence` is asked for only when there is no verdict yet; `fingerprints` change when it does. With a `place`, what that
    demands of the images that come from it counts, and no name does.
    """

    reference: Reference | None
    fingerprints: tuple[str, ...]
    evidence: Callable[[], Sequence[Evidence]]
    image_id: str = ""
    place: FilePlace | None = None

    @property
    def what(self) -> str:
        return f"image {self.reference or self.image_id}" + (f" of {self.place.path}" if self.place is not None else "")


class _Verdict(NamedTuple):
    """A pass holds `until`, in seconds since the epoch; a refusal, which has its text, until `again_at`, in monotonic ones:
    a clock that is set back must not prolong it."""

    until: float = math.inf
    refusal: str = ""
    again_at: float = math.inf

    @property
    def holds(self) -> bool:
        return time.time() < self.until and time.monotonic() < self.again_at


class _Scope(NamedTuple):
    policy: Policy
    name: str
    requirements: Sequence[Requirement]


class Judge:
    """Judges by the policies of this node; `scratch` is a directory for what gpg needs, made when needed."""

    def __init__(self, policies: Policies, *, scratch: Path) -> None:
        self.policies, self._scratch = policies, scratch
        self._verdicts: OrderedDict[tuple[object, ...], _Verdict] = OrderedDict()

    def kinds_wanted(self, reference: Reference, namespace: str) -> frozenset[SignatureKind]:
        """The kinds of signatures that a pod's policy wants of an image.

        Raises:
            Denied: no signature could make it pass, or the policy cannot be used.
        """
        case = Case(reference, (), list)
        scope = self._scope(case, namespace)
        self._refuse_outright(case, scope)
        return _kinds(scope.requirements)

    def kinds_useful(self, reference: Reference) -> frozenset[SignatureKind]:
        """The kinds that any policy of this node, of whatever namespace, wants of an image."""
        return frozenset().union(*(_kinds(policy.demands(reference)[1]) for policy in self.policies.all()))

    async def judge(self, case: Case, *, namespace: str = "") -> None:
        """Let an image pass, or refuse it.

        Raises:
            Denied: a demand is not met; the message names image, policy, scope and reason.
            TimedOut, ToolFailed: what checks signatures did not do its work.
        """
        scope = self._scope(case, namespace)
        if all(each.type == ACCEPT for each in scope.requirements):
            return
        self._refuse_outright(case, scope)
        stamps, are_settled = _look_at_keys(scope)
        key = (scope.policy.fingerprint, scope.name, case.reference, case.place, stamps, case.fingerprints)  # all it depends on
        verdict = self._verdicts.get(key)
        if verdict is None or not verdict.holds:
            verdict = await self._found(case, scope)
            if are_settled:
                self._remember(key, verdict)
        else:
            self._verdicts.move_to_end(key)
        if verdict.refusal:
            raise Denied(verdict.refusal)

    def _remember(self, key: tuple[object, ...], verdict: _Verdict) -> None:
        self._verdicts[key] = verdict
        self._verdicts.move_to_end(key)
        if len(self._verdicts) > _MAX_VERDICTS:
            self._verdicts.popitem(last=False)

    def judge_file(self, place: FilePlace) -> None:
        """Let images be loaded from a file or directory, or refuse it.

        What signatures may meet there is left to `judge`, with the place.

        Raises:
            Denied: the node's policy wants what nothing that is there can meet.
        """
        policy = self.policies.find()
        scope, requirements = policy.demands_of_file(*place)
        for requirement in requirements:
            if unmet := place.unmet(requirement):
                raise Denied(
                    f"cannot load {place.path}: signature policy {policy.source}, scope {scope!r}, demands {requirement.type} "
                    f"of {place.transport} images, {unmet}; allow it below transports.{place.transport}, or pull the image"
                )

    def _scope(self, case: Case, namespace: str) -> _Scope:
        policy = self.policies.find(namespace)
        if case.place is not None:
            return _Scope(policy, *policy.demands_of_file(*case.place))
        found = ("default", policy.default) if case.reference is None else policy.demands(case.reference)
        return _Scope(policy, *found)

    def _refuse_outright(self, case: Case, scope: _Scope) -> None:
        """What no signature can mend."""
        for requirement in scope.requirements:
            if requirement.type == REJECT:
                raise Denied(f"{_prefix(case, scope)} rejects it; change the policy to allow it")
            if requirement.type != ACCEPT and not requirement.is_verifiable:
                demand = (
                    requirement.type if requirement.signed_with is None else f"{requirement.type} with {requirement.key_type}"
                )
                raise Denied(f"{_prefix(case, scope)} demands {demand}, which nobody can verify")
            is_nameless = case.reference is None and (case.place is None or bool(case.place.unmet(requirement)))
            if requirement.type != ACCEPT and is_nameless:
                raise Denied(f"{_prefix(case, scope)} demands {requirement.type} and the image has no name to compare")

    async def _found(self, case: Case, scope: _Scope) -> _Verdict:
        """One manifest must meet all demands; the image is the same by whichever it came."""
        reasons: list[str] = []
        for evidence in case.evidence() or (None,):
            try:
                return _Verdict(await self._meet_all(case, scope, evidence))
            except (Denied, Invalid, HostFailed) as error:
                reasons.append(str(error))
        shown = "; ".join(dict.fromkeys(reasons))
        return _Verdict(refusal=f"{_prefix(case, scope)} {shown}", again_at=time.monotonic() + _REFUSED_S)

    async def _meet_all(self, case: Case, scope: _Scope, evidence: Evidence | None) -> float:
        """When the first of the demands will have to be looked at again."""
        until = math.inf
        for requirement in scope.requirements:
            if requirement.type == ACCEPT:
                continue
            unread: list[str] = []
            signatures = _of_kind(evidence, requirement, unread) if evidence is not None else []
            if evidence is None or not signatures:
                raise Denied(
                    f"demands {requirement.type}, and there is no {requirement.signed_with} signature of it{_told(unread)}; "
                    "sign the image, see that registries.d says where its signatures are, and pull it again"
                )
            until = min(until, await self._meet(requirement, signatures, case.reference, evidence.digest))
        return until

    async def _meet(
        self, requirement: Requirement, signatures: Sequence[Signature], reference: Reference | None, digest: Digest
    ) -> float:
        """One good signature is enough; returns until when it is good."""
        checking = _CHECKS[requirement.type](requirement, signatures, self._scratch)
        reasons: list[str] = []
        for signature, found in zip(signatures, await checking, strict=True):
            if isinstance(found, str):
                reasons.append(found)
                continue
            payload, until = found
            try:
                _compare(payload, signature.kind, requirement, reference=reference, digest=digest)
            except (Denied, Invalid) as error:
                reasons.append(str(error))
            else:
                return until
        raise Denied(f"demands {requirement.type}, and none of {len(signatures)} signatures is accepted: {_listed(reasons)}")


_Checked = Sequence[tuple[bytes, float] | str]  # per signature: its text and until when it is good, or why it is not


async def _check_simple(requirement: Requirement, signatures: Sequence[Signature], scratch: Path) -> _Checked:
    from criollo.trust import gpg  # this, and what checks the others, with the first signature

    keys = await _keys(requirement)
    found: list[tuple[bytes, float] | str] = []
    async with gpg.keyring(keys, scratch=scratch) as ring:
        for signature in signatures:
            try:
                verified = await ring.verify(signature.payload)
            except (Denied, Invalid) as error:
                found.append(str(error))
            else:
                found.append((verified.payload, verified.until))
    return found


async def _check_sigstore(requirement: Requirement, signatures: Sequence[Signature], scratch: Path) -> _Checked:
    from criollo.trust import sigstore

    outcomes = await sigstore.verify(requirement, signatures)
    return [
        outcome.reason or (signature.payload, outcome.until or math.inf)
        for signature, outcome in zip(signatures, outcomes, strict=True)
    ]


_CHECKS: Final[dict[str, Callable[[Requirement, Sequence[Signature], Path], Awaitable[_Checked]]]] = {
    SIGNED_BY: _check_simple,
    SIGSTORE_SIGNED: _check_sigstore,
}


async def _keys(requirement: Requirement) -> list[bytes]:
    from criollo.trust import sigstore

    return list(await sigstore.read_sources(requirement.keys))


def _compare(
    payload: bytes, kind: SignatureKind, requirement: Requirement, *, reference: Reference | None, digest: Digest
) -> None:
    """That a verified text is about this manifest under this name."""
    from criollo.trust.payload import parse_payload

    claim = parse_payload(payload, kind)
    if claim.digest != digest:
        raise Denied(f"a signature is for manifest {claim.digest}, this is {digest}")
    if not requirement.identity.fits(reference, claim.name):
        raise Denied(
            f"a signature is for the name {printable(claim.name)[:300]!r}, which {requirement.identity.kind} does not take"
        )


def _listed(reasons: Sequence[str]) -> str:
    shown = list(dict.fromkeys(printable(reason) for reason in reasons))
    more = f" (and {len(shown) - _MAX_REASONS} more reasons)" if len(shown) > _MAX_REASONS else ""
    return f"{'; '.join(shown[:_MAX_REASONS])}{more}"


def _told(unread: Sequence[str]) -> str:
    """Why signatures that are kept do not count: of what kind they were meant to be, nobody knows."""
    return f" that can be read ({_listed(unread)})" if unread else ""


def _of_kind(evidence: Evidence, requirement: Requirement, unread: list[str]) -> list[Signature]:
    """The signatures that a requirement may be met by; `unread` gets the reasons of those that cannot be read."""
    from criollo.trust import sigstore

    found = []
    for blob in evidence.blobs[:MAX_SIGNATURES]:
        try:
            signature = parse_blob(blob)
        except Invalid as error:
            log.info("a signature is malformed", manifest=evidence.digest, error=error)
            unread.append(str(error))
            continue
        if requirement.signed_with is SignatureKind.SIMPLE and signature.kind is SignatureKind.SIMPLE:
            found.append(signature)
        if requirement.signed_with is SignatureKind.SIGSTORE and sigstore.is_signature(signature):
            found.append(signature)
    return found


def _kinds(requirements: Sequence[Requirement]) -> frozenset[SignatureKind]:
    return frozenset(each.signed_with for each in requirements if each.signed_with is not None)


def _look_at_keys(scope: _Scope) -> tuple[tuple[Stamp | None, ...], bool]:
    """The stamps of the files that the demands name, and whether these tell every change from now on."""
    found: list[tuple[Stamp | None, bool]] = []
    for path in sorted({path for each in scope.requirements for path in each.paths}):
        try:
            found.append(look(path))
        except OSError:
            found.append((None, True))
    return tuple(stamp for stamp, _ in found), all(is_settled for _, is_settled in found)


def _prefix(case: Case, scope: _Scope) -> str:
    return f"cannot use {case.what}: signature policy {scope.policy.source}, scope {scope.name!r},"
