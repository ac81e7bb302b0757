"""trust.verifying: tasks and answers, in this process; the child itself answers in test_trust_sigstore."""

import base64
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from support.signing import SIGSTORE, Authority, SigstoreKey, payload, pem_of

from criollo.trust.sigstore import Doubtful, Task
from criollo.trust.verifying import work

KEY = SigstoreKey.ecdsa()
TEXT = payload("sha256:" + "0" * 64, "a.b/c:v1", SIGSTORE)
ROOT = Authority()


def doubtful(signed=None, **change):
    signed = signed or KEY.sign(TEXT)
    fields = {"payload": signed.payload, "signature": signed.annotations["dev.cosignproject.cosign/signature"], **change}
    return Doubtful(**fields)


def asked(*signatures, **task):
    return work(Task(**{"signatures": signatures, "now": time.time(), "keys": (KEY.pem,), **task}))


@pytest.mark.parametrize("key", [KEY, SigstoreKey.rsa(), SigstoreKey.ed25519()])
def test_a_good_signature_has_no_reason(key):
    (outcome,) = asked(doubtful(key.sign(TEXT)), keys=(SigstoreKey.ecdsa().pem, key.pem)).outcomes
    assert (outcome.reason, outcome.until) == ("", 0)


def test_each_signature_has_its_outcome():
    outcomes = asked(doubtful(), doubtful(signature=None), doubtful(SigstoreKey.ecdsa().sign(TEXT)), doubtful()).outcomes
    assert [bool(each.reason) for each in outcomes] == [False, True, True, False]


ODD = SigstoreKey(ec.generate_private_key(ec.SECP256K1()))


@pytest.mark.parametrize("key", [b"", b"x", ROOT.pem, SigstoreKey.rsa(1024).pem, ODD.pem])
def test_a_key_of_the_policy_that_cannot_be_used_is_trouble(key):
    answer = asked(doubtful(), keys=(KEY.pem, key))
    assert answer.trouble
    assert answer.outcomes == ()


def test_a_log_key_must_be_ecdsa():
    assert "ECDSA" in asked(doubtful(), rekor=(SigstoreKey.rsa().pem,)).trouble


def test_a_certificate_on_an_odd_curve_proves_nothing():
    certificate = pem_of(ROOT.issue(ODD, email="a@b")).decode()
    (outcome,) = asked(
        doubtful(ODD.sign(TEXT), certificate=certificate), kind="pki", roots=(ROOT.pem,), keys=(), email="a@b"
    ).outcomes
    assert "secp256k1" in outcome.reason


def test_a_log_is_wanted_where_the_policy_has_one():
    (outcome,) = asked(doubtful(), rekor=(KEY.pem,)).outcomes
    assert "transparency log" in outcome.reason


@pytest.mark.parametrize("kind", ["fulcio", "pki"])
@pytest.mark.parametrize("certificate", [None, "", "x", ROOT.pem.decode() * 2])
def test_a_certificate_is_wanted_where_the_policy_has_roots(kind, certificate):
    (outcome,) = asked(doubtful(certificate=certificate), kind=kind, roots=(ROOT.pem,), keys=(), email="a@b").outcomes
    assert outcome.reason


def test_a_verdict_by_certificates_ends_with_the_first_of_them():
    leaf = ROOT.issue(KEY, email="a@b", days=0.5)
    (outcome,) = asked(
        doubtful(certificate=pem_of(leaf).decode()), kind="pki", roots=(ROOT.pem,), keys=(), email="a@b"
    ).outcomes
    assert outcome.reason == ""
    assert outcome.until == leaf.not_valid_after_utc.timestamp()


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_any_annotations_are_refused(signature, certificate, chain, entry):
    made = Doubtful(payload=TEXT, signature=signature, certificate=certificate, chain=chain, log_entry=entry)
    for task in ({}, {"kind": "pki", "roots": (ROOT.pem,)}, {"kind": "fulcio", "roots": (ROOT.pem,), "rekor": (KEY.pem,)}):
        assert asked(made, **task).outcomes[0].reason


@given(st.binary(max_size=100))
def test_any_signature_bytes_are_refused(raw):
    for key in (KEY, SigstoreKey.ed25519()):
        (outcome,) = asked(doubtful(signature=base64.b64encode(raw).decode()), keys=(key.pem,)).outcomes
        assert outcome.reason
