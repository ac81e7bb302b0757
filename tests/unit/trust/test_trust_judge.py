"""trust.judge: verdicts with sigstore keys, which need no program; what they depend on, what is remembered."""

import asyncio
import base64
import json
import os
import time
from types import SimpleNamespace

import pytest
from support.signing import SIGSTORE, SIGSTORE_LAYER, SigstoreKey, digest_of, payload

from criollo.aio import threads
from criollo.errors import Denied
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.oci.signature import MAX_BYTES, SignatureKind, sigstore, simple
from criollo.trust import judge, policies
from criollo.trust import sigstore as child
from criollo.trust.judge import Case, Evidence, Judge
from criollo.trust.places import FilePlace
from criollo.trust.policies import Policies

KEY = SigstoreKey.ecdsa()
NAME = "a.b/c:v1"
MANIFEST = Digest(digest_of(b"manifest"))
ACCEPT, REJECT = {"type": "insecureAcceptAnything"}, {"type": "reject"}


def by(key=KEY, **more):
    return {"type": "sigstoreSigned", "keyData": base64.b64encode(key.pem).decode(), **more}


def blob(key=KEY, digest=MANIFEST, name=NAME):
    text = payload(digest, name, SIGSTORE)
    return sigstore(text, media_type=SIGSTORE_LAYER, annotations=dict(key.sign(text).annotations)).to_blob()


class Court:
    """A judge with a policy on the disk; counts how often signatures are checked."""

    def __init__(self, root, monkeypatch):
        self.root, self.checked = root, 0
        self.path = root / "policy.json"
        self.judge = Judge(Policies(self.path, directory=root / "spaces"), scratch=root / "scratch")
        verify = child.verify

        async def counted(requirement, signatures):
            self.checked += 1
            return await verify(requirement, signatures)

        monkeypatch.setattr(child, "verify", counted)

    def rule(self, *requirements, **scopes):
        self.path.write_text(json.dumps({"default": requirements, "transports": {"docker": scopes}}))

    def ask(self, *evidence, name=NAME, namespace=""):
        """Empty if the image may run, else why not."""
        reference = Reference.parse(name) if name else None
        case = Case(reference, tuple(each.fingerprint for each in evidence), lambda: evidence, "f" * 64)
        try:
            asyncio.run(self.judge.judge(case, namespace=namespace))
        except Denied as error:
            return str(error)
        finally:
            threads.close()
        return ""


@pytest.fixture
def court(tmp_path, monkeypatch):
    return Court(tmp_path, monkeypatch)


GOOD = Evidence(MANIFEST, (blob(),))


def test_a_good_signature_is_checked_once(court):
    court.rule(by())
    assert [court.ask(GOOD) for _ in range(5)] == [""] * 5
    assert court.checked == 1


def test_a_bad_one_too(court):
    court.rule(by(SigstoreKey.ecdsa()))
    assert "by no key" in court.ask(GOOD)
    assert "by no key" in court.ask(GOOD)
    assert court.checked == 1


@pytest.mark.parametrize(("elapsed_s", "checks"), [(20, 1), (40, 2)])
@pytest.mark.parametrize("shift_s", [-366 * 86400, 0, 366 * 86400], ids=["back", "stays", "ahead"])
def test_a_refusal_lasts_as_long_whatever_the_clock_is_set_to(court, monkeypatch, elapsed_s, checks, shift_s):
    wall, since_boot = time.time, time.monotonic
    court.rule(by(SigstoreKey.ecdsa()))
    court.ask(GOOD)
    monkeypatch.setattr(
        judge, "time", SimpleNamespace(time=lambda: wall() + shift_s, monotonic=lambda: since_boot() + elapsed_s)
    )
    assert "by no key" in court.ask(GOOD)
    assert court.checked == checks


def test_an_accepted_image_is_checked_anew_under_another_policy_name_or_proof(court):
    court.rule(by())
    assert court.ask(GOOD) == ""
    assert "does not take" in court.ask(GOOD, name="a.b/c:v2")
    assert "a signature is for manifest" in court.ask(Evidence(Digest(digest_of(b"x")), GOOD.blobs))
    court.rule(by(SigstoreKey.ecdsa()))
    assert court.ask(GOOD)
    court.rule(by())
    assert court.ask(GOOD) == ""


def test_a_changed_key_file_counts(court):
    path = court.root / "key.pem"
    path.write_bytes(KEY.pem)
    court.rule({"type": "sigstoreSigned", "keyPath": str(path)})
    assert court.ask(GOOD) == ""
    path.write_bytes(SigstoreKey.ecdsa().pem)
    assert "by no key" in court.ask(GOOD)
    path.unlink()
    assert "key.pem" in court.ask(GOOD)
    path.write_bytes(KEY.pem)
    assert court.ask(GOOD) == ""


def test_a_key_file_that_changes_twice_within_one_tick_of_the_clock_counts(court, monkeypatch):
    """Its second content has the stamp of the first."""
    path, stat = court.root / "key.pem", os.stat
    path.write_bytes(KEY.pem)
    court.rule({"type": "sigstoreSigned", "keyPath": str(path)})
    first = stat(path)
    monkeypatch.setattr(os, "stat", lambda file, **options: first if file == str(path) else stat(file, **options))
    monkeypatch.setattr(policies, "time", SimpleNamespace(time_ns=lambda: first.st_ctime_ns + 1_000_000))
    assert court.ask(GOOD) == ""
    path.write_bytes(SigstoreKey.ecdsa().pem)
    assert "by no key" in court.ask(GOOD)


def test_the_verdict_by_a_key_file_is_kept_once_its_stamp_tells_changes(court, monkeypatch):
    path = court.root / "key.pem"
    path.write_bytes(KEY.pem)
    court.rule({"type": "sigstoreSigned", "keyPath": str(path)})
    clock = SimpleNamespace(now_ns=os.stat(path).st_ctime_ns + 1_000_000)
    monkeypatch.setattr(policies, "time", SimpleNamespace(time_ns=lambda: clock.now_ns))
    counts = []
    for _ in range(4):
        assert court.ask(GOOD) == ""
        counts.append(court.checked)
        clock.now_ns += 40_000_000
    assert counts == [1, 2, 3, 3]


def test_all_requirements_must_hold_for_one_manifest(court):
    other = SigstoreKey.ecdsa()
    court.rule(by(), by(other))
    assert court.ask(GOOD)
    second = Evidence(Digest(digest_of(b"second")), (blob(other, digest_of(b"second")),))
    assert court.ask(GOOD, second)
    assert court.ask(Evidence(MANIFEST, (blob(), blob(other)))) == ""


def test_any_manifest_of_an_image_may_prove_it(court):
    court.rule(by())
    assert court.ask(Evidence(Digest(digest_of(b"x"))), GOOD) == ""


def test_without_signatures(court):
    court.rule(by())
    for evidence in ((), (Evidence(MANIFEST),), (Evidence(MANIFEST, (simple(b"\x90x").to_blob(),)),)):
        assert "there is no sigstore signature of it; sign the image" in court.ask(*evidence)
    assert court.checked == 0


def test_signatures_that_nobody_can_read_are_told_of(court):
    """They are no reason to say that there are none."""
    court.rule(by())
    long = sigstore(bytes(MAX_BYTES + 1), media_type=SIGSTORE_LAYER, annotations={}).to_blob()
    told = court.ask(Evidence(MANIFEST, (long, b"garbage")))
    assert "there is no sigstore signature of it that can be read (" in told
    assert f"{MAX_BYTES + 1} bytes" in told
    assert "an OpenPGP message" in told
    assert court.checked == 0
    assert court.ask(Evidence(MANIFEST, (long, *GOOD.blobs))) == ""


def test_the_last_of_many_signatures_counts_as_the_first(court):
    """cosign adds one at each signing, whoever signs."""
    court.rule(by())
    other = SigstoreKey.ecdsa()
    others = tuple(blob(other, name=f"a.b/c:v{at}") for at in range(300))
    assert court.ask(Evidence(MANIFEST, (*others, *GOOD.blobs))) == ""


def test_what_no_signature_mends_is_not_checked(court):
    for rules in ([REJECT], [by(), REJECT]):
        court.rule(*rules)
        assert "rejects it" in court.ask(GOOD)
    court.rule({"type": "signedBy", "keyType": "X509Certificates", "keyData": "YQ=="})
    assert "signedBy with X509Certificates, which nobody can verify" in court.ask(GOOD)
    court.rule({"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}})
    assert "signedBaseLayer, which nobody can verify" in court.ask(GOOD)
    assert court.checked == 0


def test_an_image_without_a_name_has_only_the_default(court):
    court.rule(ACCEPT, **{"a.b": [REJECT]})
    assert court.ask(name="") == ""
    court.rule(by())
    assert "has no name to compare" in court.ask(GOOD, name="")


def test_a_refusal_names_image_policy_scope_and_reason(court):
    court.rule(ACCEPT, **{"a.b/c": [by(SigstoreKey.ecdsa())]})
    assert court.ask(GOOD) == (
        f"cannot use image {NAME}: signature policy {court.path}, scope 'a.b/c', demands sigstoreSigned, and none of "
        "1 signatures is accepted: it is by no key that the policy has"
    )


def test_many_reasons_are_cut_short(court):
    court.rule(by())
    blobs = tuple(blob(name=f"a.b/other{at}:v1") for at in range(9))
    assert "(and 4 more reasons)" in court.ask(Evidence(MANIFEST, blobs))


def test_kinds_that_a_pull_looks_for(court):
    simple_rule = {"type": "signedBy", "keyType": "GPGKeys", "keyData": "YQ=="}
    reference = Reference.parse(NAME)
    court.rule(by(), ACCEPT)
    assert court.judge.kinds_wanted(reference, "") == {SignatureKind.SIGSTORE}
    (court.root / "spaces").mkdir()
    (court.root / "spaces/strict.json").write_text(json.dumps({"default": [simple_rule]}))
    assert court.judge.kinds_wanted(reference, "strict") == {SignatureKind.SIMPLE}
    assert court.judge.kinds_useful(reference) == {SignatureKind.SIMPLE, SignatureKind.SIGSTORE}
    court.rule(REJECT)
    with pytest.raises(Denied, match="rejects"):
        court.judge.kinds_wanted(reference, "")


def test_evidence_is_told_apart_by_every_byte():
    marks = {Evidence(MANIFEST, blobs).fingerprint for blobs in ((), (b"a",), (b"b",), (b"a", b"b"))}
    assert len(marks) == 4


def place(court, transport):
    return FilePlace.at(transport, court.root / "a.tar")


def test_a_file_may_be_loaded_only_where_nothing_is_wanted_of_it(court):
    court.rule(REJECT)
    for transport in ("oci-archive", "docker-archive"):
        with pytest.raises(Denied, match=f"demands reject of {transport} images") as caught:
            court.judge.judge_file(place(court, transport))
        assert f"transports.{transport}" in str(caught.value)
    court.path.write_text(json.dumps({"default": [by()], "transports": {"oci-archive": {"": [ACCEPT]}}}))
    court.judge.judge_file(place(court, "oci-archive"))
    with pytest.raises(Denied, match="sigstoreSigned"):
        court.judge.judge_file(place(court, "docker-archive"))


def test_a_dir_may_be_loaded_where_its_signatures_could_be_enough(court):
    court.rule(by(signedIdentity=EXACTLY))
    court.judge.judge_file(place(court, "dir"))
    with pytest.raises(Denied, match="which no file meets"):
        court.judge.judge_file(place(court, "oci"))
    court.rule(by())
    with pytest.raises(Denied, match="no name for matchRepoDigestOrExact; write exactReference"):
        court.judge.judge_file(place(court, "dir"))
    court.rule(by(signedIdentity=EXACTLY), REJECT)
    with pytest.raises(Denied, match="demands reject"):
        court.judge.judge_file(place(court, "dir"))


EXACTLY = {"type": "exactReference", "dockerReference": NAME}


@pytest.mark.parametrize(
    ("identity", "evidence", "told"),
    [
        (EXACTLY, GOOD, ""),
        ({"type": "exactRepository", "dockerRepository": "a.b/c"}, GOOD, ""),
        ({"type": "exactReference", "dockerReference": "a.b/c:v2"}, GOOD, "which exactReference does not take"),
        (EXACTLY, Evidence(MANIFEST), "there is no sigstore signature"),
        (EXACTLY, Evidence(Digest(digest_of(b"x")), GOOD.blobs), "a signature is for manifest"),
        ({"type": "matchRepository"}, GOOD, "has no name to compare"),
    ],
)
def test_an_image_of_a_dir_is_judged_by_its_signatures_and_no_name(court, identity, evidence, told):
    court.path.write_text(
        json.dumps({"default": [REJECT], "transports": {"dir": {str(court.root): [by(signedIdentity=identity)]}}})
    )
    case = Case(None, (evidence.fingerprint,), lambda: [evidence], "f" * 64, place(court, "dir"))

    async def ask():
        await court.judge.judge(case)

    try:
        if not told:
            asyncio.run(ask())
            return
        with pytest.raises(Denied, match=told):
            asyncio.run(ask())
    finally:
        threads.close()


def test_a_link_does_not_lend_its_place_to_what_it_leads_to(court):
    (court.root / "trusted").mkdir()
    (court.root / "evil").mkdir()
    (court.root / "trusted/link").symlink_to(court.root / "evil")
    scopes = {str(court.root / "trusted"): [ACCEPT]}
    court.path.write_text(json.dumps({"default": [REJECT], "transports": {"dir": scopes, "oci": scopes}}))
    for transport in ("dir", "oci"):
        court.judge.judge_file(FilePlace.at(transport, court.root / "trusted/x"))
        for way in ("trusted/link", "trusted/../evil", "trusted/link/x"):
            with pytest.raises(Denied, match="demands reject"):
                court.judge.judge_file(FilePlace.at(transport, court.root / way))
