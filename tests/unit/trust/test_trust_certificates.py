"""trust.certificates: ways to a root, good and bad, made with a certificate authority of our own."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.signing import Authority, SigstoreKey, pem_of

from criollo.errors import Denied
from criollo.trust.certificates import (
    check_chain,
    check_fulcio_subject,
    check_pki_subject,
    load,
    load_chain,
    load_one,
)

ROOT, KEY = Authority(), SigstoreKey.ecdsa()
BETWEEN = ROOT.intermediate()
NOW = time.time()


def refused(leaf, between=(), roots=(ROOT.certificate,), at=NOW):
    with pytest.raises(Denied) as told:
        check_chain(leaf, between, roots, at=at)
    return str(told.value)


def test_a_root_vouches_for_a_leaf():
    leaf = ROOT.issue(KEY, days=0.5)
    assert check_chain(leaf, [], [ROOT.certificate], at=NOW) == leaf.not_valid_after_utc.timestamp()


def test_the_way_may_lead_over_others():
    deep = BETWEEN.intermediate("deep")
    leaf = deep.issue(KEY)
    assert check_chain(leaf, [deep.certificate, BETWEEN.certificate], [ROOT.certificate], at=NOW)
    assert "no authority" in refused(leaf, [deep.certificate])
    assert check_chain(leaf, [], [deep.certificate], at=NOW)  # whatever the policy trusts is a root


def test_a_stranger_of_the_same_name_vouches_for_nobody():
    assert "no authority" in refused(Authority().issue(KEY))


def test_the_root_of_the_policy_may_be_the_leaf_itself():
    leaf = Authority().issue(KEY)
    assert check_chain(leaf, [], [leaf], at=NOW)


@pytest.mark.parametrize("days", [-10, 10])
def test_time_counts_for_the_leaf(days):
    assert "not valid at" in refused(ROOT.issue(KEY), at=NOW + days * 86400)


def test_time_counts_for_those_between():
    old = ROOT.intermediate(start=datetime.now(UTC) - timedelta(days=9))
    assert "no authority" in refused(old.issue(KEY), [old.certificate])


def test_a_leaf_is_no_authority():
    false = ROOT.intermediate(ca=False)
    assert "no authority" in refused(false.issue(KEY), [false.certificate])


def test_a_way_may_be_too_long_for_an_authority():
    short = ROOT.intermediate("short", path_length=0)
    assert check_chain(short.issue(KEY), [short.certificate], [ROOT.certificate], at=NOW)
    further = short.intermediate("further")
    assert "no authority" in refused(further.issue(KEY), [short.certificate, further.certificate])


def test_a_leaf_for_servers_signs_no_code():
    assert "not for code signing" in refused(ROOT.issue(KEY, usage=ExtendedKeyUsageOID.SERVER_AUTH))
    assert check_chain(ROOT.issue(KEY, usage=ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE), [], [ROOT.certificate], at=NOW)


def test_an_authority_that_must_not_sign_certificates():
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    weak = ROOT.intermediate(extra=[(usage, True)])
    assert "no authority" in refused(weak.issue(KEY), [weak.certificate])


def test_what_is_not_understood_refuses():
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x")
    assert check_chain(ROOT.issue(KEY, extra=[(strange, False)]), [], [ROOT.certificate], at=NOW)
    assert "1.2.3.4" in refused(ROOT.issue(KEY, extra=[(strange, True)]))
    names = x509.NameConstraints([x509.DNSName("example.com")], None)
    bound = ROOT.intermediate(extra=[(names, False)])
    assert "no authority" in refused(bound.issue(KEY), [bound.certificate])


def test_a_policy_of_an_authority_is_no_matter():
    policies = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3.4"), None)])
    between = ROOT.intermediate(extra=[(policies, True)])
    leaf = between.issue(KEY, extra=[(policies, True)])
    assert check_chain(leaf, [between.certificate], [ROOT.certificate], at=NOW)


@pytest.mark.parametrize(("curve", "expected"), [(ec.SECP384R1, True), (ec.SECP256K1, False), (ec.BrainpoolP256R1, False)])
def test_curves_are_those_that_other_verifiers_know(curve, expected):
    strange = SigstoreKey(ec.generate_private_key(curve()))
    root = Authority(key=strange.private)
    if expected:
        assert check_chain(ROOT.issue(strange), [], [ROOT.certificate], at=NOW)
        assert check_chain(root.issue(KEY), [], [root.certificate], at=NOW)
    else:
        assert curve.name in refused(ROOT.issue(strange))
        assert "no authority" in refused(root.issue(KEY), roots=[root.certificate])


def test_ways_that_multiply_end():
    many = [ROOT.intermediate("same") for _ in range(40)]
    layered = [each.intermediate("same") for each in many[:20]]
    leaf = Authority("same").issue(KEY)
    refused(leaf, [each.certificate for each in (*many, *layered)], roots=[Authority("elsewhere").certificate])


def test_a_loop_ends():
    one = Authority("one")
    refused(one.issue(KEY), [one.certificate], roots=[ROOT.certificate])


def with_issuer(*extensions):
    return ROOT.issue(KEY, email="a@example.com", extra=[(each, False) for each in extensions])


def issuer(version, raw):
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.3.6.1.4.1.57264.1.{version}"), raw)


@pytest.mark.parametrize(
    "leaf",
    [
        with_issuer(issuer(1, b"https://i")),
        with_issuer(issuer(8, b"\x0c\x09https://i")),
        with_issuer(issuer(1, b"https://i"), issuer(8, b"\x0c\x09https://i")),
    ],
)
def test_a_person_by_an_issuers_word(leaf):
    check_fulcio_subject(leaf, issuer="https://i", email="a@example.com")
    for wrong in ({"issuer": "https://j", "email": "a@example.com"}, {"issuer": "https://i", "email": "A@example.com"}):
        with pytest.raises(Denied):
            check_fulcio_subject(leaf, **wrong)


@pytest.mark.parametrize(
    "leaf",
    [
        with_issuer(),
        with_issuer(issuer(1, b"https://i"), issuer(8, b"\x0c\x09https://j")),
        with_issuer(issuer(8, b"https://i")),
        with_issuer(issuer(8, b"\x0c\x08https://i")),
        with_issuer(issuer(8, b"\x0c\x81\x09https://i")),
        with_issuer(issuer(8, b"\x0c")),
    ],
)
def test_no_issuers_word(leaf):
    with pytest.raises(Denied, match="OIDC issuer"):
        check_fulcio_subject(leaf, issuer="https://i", email="a@example.com")


def test_a_long_issuer_has_a_long_length():
    text = "https://" + "i" * 200
    leaf = with_issuer(issuer(8, b"\x0c\x81" + bytes([len(text)]) + text.encode()))
    check_fulcio_subject(leaf, issuer=text, email="a@example.com")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("b.example.com", True),
        ("B.Example.Com.", True),
        ("example.com", False),
        ("x.w.example.com", True),
        ("y.x.w.example.com", False),
        ("w.example.com", False),
        ("1.2.3.4", False),
    ],
)
def test_hosts(host, expected):
    leaf = ROOT.issue(KEY, hosts=["b.example.com", "*.w.example.com"])
    if expected:
        check_pki_subject(leaf, email="", hostname=host)
    else:
        with pytest.raises(Denied):
            check_pki_subject(leaf, email="", hostname=host)


def test_a_certificate_without_names_is_for_nobody():
    for wanted in ({"email": "a@b", "hostname": ""}, {"email": "", "hostname": "h"}):
        with pytest.raises(Denied):
            check_pki_subject(ROOT.issue(KEY), **wanted)


def test_reading():
    leaf = ROOT.issue(KEY)
    assert load_one(pem_of(leaf)) == leaf
    assert load([ROOT.pem, pem_of(leaf, leaf)], what="x") == [ROOT.certificate, leaf, leaf]
    assert load_chain(None) == load_chain("") == load_chain("\n") == []
    assert load_chain(pem_of(leaf, ROOT.certificate).decode()) == [leaf]
    with pytest.raises(Denied):
        load([b"no certificate"], what="x")
    with pytest.raises(Denied):
        load_one(pem_of(leaf, leaf))
    with pytest.raises(Denied):
        load_chain(pem_of(leaf).decode() * 70)
    with pytest.raises(ValueError, match="PEM"):
        load_one(b"no certificate")
