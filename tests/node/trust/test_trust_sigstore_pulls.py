"""Sigstore signatures at a pull: attached in a real registry, by keys, by our own Fulcio and Rekor."""

import base64
import json
import time

import pytest
from support.signing import SIGSTORE, Authority, Log, Signed, SigstoreKey, attach, payload, pem_of, policy, put_signature
from support.trusting import REPOSITORY as HOSTED

from criollo.oci.signature import MAX_BYTES, sigstore

pytestmark = pytest.mark.node

MADE = {"ecdsa": SigstoreKey.ecdsa(), "rsa": SigstoreKey.rsa(), "ed25519": SigstoreKey.ed25519()}


def with_key(key, **more):
    return {"type": "sigstoreSigned", "keyData": base64.b64encode(key.pem).decode(), **more}


@pytest.mark.parametrize("kind", MADE)
def test_a_sigstore_signature(place, tmp_path, kind):
    digest, name = place.image()
    attach(place.registry, HOSTED, digest, [MADE[kind].sign(payload(digest, name, SIGSTORE))])
    assert place.accepts(policy(with_key(MADE[kind])), name, tmp_path)


SIGSTORE_BAD = {
    "wrong key": lambda key, digest, name: SigstoreKey.ecdsa().sign(payload(digest, name, SIGSTORE)),
    "other text": lambda key, digest, name: key.sign(payload(digest, name, SIGSTORE), over=b"x"),
    "other digest": lambda key, digest, name: key.sign(payload("sha256:" + "0" * 64, name, SIGSTORE)),
    "other name": lambda key, digest, name: key.sign(payload(digest, name + "x", SIGSTORE)),
    "other type": lambda key, digest, name: key.sign(payload(digest, name)),
    "no signature": lambda key, digest, name: Signed(payload(digest, name, SIGSTORE)),
    "no base64": lambda key, digest, name: Signed(payload(digest, name, SIGSTORE), {"dev.cosignproject.cosign/signature": "%"}),
    "another attachment": lambda key, digest, name: Signed(
        payload(digest, name, SIGSTORE), key.sign(payload(digest, name, SIGSTORE)).annotations, "text/plain"
    ),
}


@pytest.mark.parametrize("kind", SIGSTORE_BAD)
def test_sigstore_signatures_that_prove_nothing(place, tmp_path, kind):
    key = MADE["ecdsa"]
    digest, name = place.image()
    attach(place.registry, HOSTED, digest, [SIGSTORE_BAD[kind](key, digest, name)])
    assert not place.accepts(policy(with_key(key)), name, tmp_path)


def test_one_good_sigstore_signature_among_bad_ones(place, tmp_path):
    key = MADE["ecdsa"]
    digest, name = place.image()
    attach(
        place.registry,
        HOSTED,
        digest,
        [*(make(key, digest, name) for make in SIGSTORE_BAD.values()), key.sign(payload(digest, name, SIGSTORE))],
    )
    assert place.accepts(policy(with_key(key)), name, tmp_path)


@pytest.mark.parametrize("at", [0, 299])
def test_one_good_sigstore_signature_among_hundreds_of_others(place, tmp_path, at):
    """Each signing adds one, in a pipeline that runs every night as well; containers/image looks at all of them."""
    key, other = MADE["ecdsa"], SigstoreKey.ecdsa()
    digest, name = place.image()
    text = payload(digest, name, SIGSTORE)
    signatures = [other.sign(text) for _ in range(299)]
    signatures.insert(at, key.sign(text))
    attach(place.registry, HOSTED, digest, signatures)
    assert place.accepts(policy(with_key(key)), name, tmp_path)


def test_a_payload_of_megabytes(place, tmp_path):
    """Kept in base64 it is longer than one may be."""
    key = MADE["ecdsa"]
    digest, name = place.image()
    text = payload(digest, name, SIGSTORE).ljust(MAX_BYTES)
    attach(place.registry, HOSTED, digest, [key.sign(text)])
    assert place.accepts(policy(with_key(key)), name, tmp_path)


def test_attachments_count_only_where_registries_d_says_so(place, tmp_path):
    key = MADE["ecdsa"]
    digest, name = place.image()
    attach(place.registry, HOSTED, digest, [key.sign(payload(digest, name, SIGSTORE))])
    place.write_places(lookaside=f"file://{place.lookaside}", attachments=False)
    try:
        assert not place.accepts(policy(with_key(key)), name, tmp_path)
    finally:
        place.write_places(lookaside=f"file://{place.lookaside}", attachments=True)


def test_both_kinds_of_signatures_demanded(place, keys, tmp_path):
    key = MADE["ecdsa"]
    digest, name = place.image()
    attach(place.registry, HOSTED, digest, [key.sign(payload(digest, name, SIGSTORE))])
    assert not place.accepts(policy(with_key(key), by(keys)), name, tmp_path)
    put_signature(place.lookaside, HOSTED, digest, keys.sign(payload(digest, name), keys.good))
    (tmp_path / "signed").mkdir()
    assert place.accepts(policy(with_key(key), by(keys)), name, tmp_path / "signed")


def test_one_kind_does_not_stand_for_the_other(place, keys, tmp_path):
    digest, name = place.image()
    put_signature(place.lookaside, HOSTED, digest, keys.sign(payload(digest, name), keys.good))
    assert not place.accepts(policy(with_key(MADE["ecdsa"])), name, tmp_path)


def by(keys):
    return {"type": "signedBy", "keyType": "GPGKeys", "keyData": base64.b64encode(keys.ring.export(keys.good)).decode()}


def test_a_sigstore_signature_in_a_lookaside(place, tmp_path):
    key = MADE["ecdsa"]
    digest, name = place.image()
    signed = key.sign(payload(digest, name, SIGSTORE))
    blob = sigstore(signed.payload, media_type=signed.media_type, annotations=dict(signed.annotations)).to_blob()
    put_signature(place.lookaside, HOSTED, digest, blob)
    assert place.accepts(policy(with_key(key)), name, tmp_path)


def test_several_keys_and_key_files(place, tmp_path):
    digest, name = place.image()
    attach(place.registry, HOSTED, digest, [MADE["rsa"].sign(payload(digest, name, SIGSTORE))])
    for at, kind in enumerate(MADE):
        (tmp_path / f"{at}.pem").write_bytes(MADE[kind].pem)
    paths = {"type": "sigstoreSigned", "keyPaths": [str(tmp_path / f"{at}.pem") for at in range(3)]}
    datas = {"type": "sigstoreSigned", "keyDatas": [base64.b64encode(key.pem).decode() for key in MADE.values()]}
    for at, rule in enumerate((paths, datas)):
        (tmp_path / f"r{at}").mkdir()
        assert place.accepts(policy(rule), name, tmp_path / f"r{at}")


ROOT, LOG = Authority(), Log(SigstoreKey.ecdsa())
ISSUER, EMAIL = "https://github.com/login/oauth", "a@example.com"


def with_fulcio(root=ROOT, log=LOG, **more):
    fulcio = {"caData": base64.b64encode(root.pem).decode(), "oidcIssuer": ISSUER, "subjectEmail": EMAIL, **more}
    return {"type": "sigstoreSigned", "fulcio": fulcio, "rekorPublicKeyData": base64.b64encode(log.key.pem).decode()}


def by_person(text, *, chain="", at=None, log=LOG, authority=ROOT, **more):
    """A signature with a short-lived certificate, seen by a log."""
    key = SigstoreKey.ecdsa()
    certificate = pem_of(authority.issue(key, **{"email": EMAIL, "issuer": ISSUER, **more})).decode()
    signed = key.sign(text)
    raw = base64.b64decode(signed.annotations["dev.cosignproject.cosign/signature"])
    entry = log.entry(maker=certificate.encode(), signature=raw, text=text, at=time.time() if at is None else at)
    further = {"dev.sigstore.cosign/certificate": certificate, "dev.sigstore.cosign/bundle": entry}
    return Signed(text, {**signed.annotations, **further, **({"dev.sigstore.cosign/chain": chain} if chain else {})})


@pytest.mark.parametrize(
    ("change", "rule", "expected"),
    [
        ({}, {}, True),
        ({"email": "b@example.com"}, {}, False),
        ({"issuer": "https://evil.example"}, {}, False),
        ({"issuer": ""}, {}, False),
        ({"authority": Authority()}, {}, False),
        ({"log": Log(SigstoreKey.ecdsa())}, {}, False),
        ({"at": time.time() + 5 * 86400}, {}, False),
        ({"at": time.time() - 5 * 86400}, {}, False),
        ({}, {"subjectEmail": "b@example.com"}, False),
    ],
)
def test_signatures_of_people(place, tmp_path, change, rule, expected):
    digest, name = place.image()
    attach(place.registry, HOSTED, digest, [by_person(payload(digest, name, SIGSTORE), **change)])
    assert place.accepts(policy(with_fulcio(**rule)), name, tmp_path) is expected


def test_a_chain_that_comes_with_the_signature(place, tmp_path):
    between = ROOT.intermediate()
    digest, name = place.image()
    chain = pem_of(between.certificate, ROOT.certificate).decode()
    attach(place.registry, HOSTED, digest, [by_person(payload(digest, name, SIGSTORE), authority=between, chain=chain)])
    assert place.accepts(policy(with_fulcio()), name, tmp_path)


def test_a_person_without_a_log_is_nobody(place, tmp_path):
    digest, name = place.image()
    signed = by_person(payload(digest, name, SIGSTORE))
    bare = {key: value for key, value in signed.annotations.items() if not key.endswith("bundle")}
    attach(place.registry, HOSTED, digest, [Signed(signed.payload, bare)])
    assert not place.accepts(policy(with_fulcio()), name, tmp_path)


def test_a_log_entry_of_another_signature(place, tmp_path):
    digest, name = place.image()
    text = payload(digest, name, SIGSTORE)
    one, other = by_person(text), by_person(text)
    swapped = {**one.annotations, "dev.sigstore.cosign/bundle": other.annotations["dev.sigstore.cosign/bundle"]}
    attach(place.registry, HOSTED, digest, [Signed(text, swapped)])
    assert not place.accepts(policy(with_fulcio()), name, tmp_path)


def test_a_key_whose_signatures_must_be_in_a_log(place, tmp_path):
    key = MADE["ecdsa"]
    rule = with_key(key, rekorPublicKeyData=base64.b64encode(LOG.key.pem).decode())
    digest, name = place.image()
    text = payload(digest, name, SIGSTORE)
    plain = key.sign(text)
    attach(place.registry, HOSTED, digest, [plain])
    assert not place.accepts(policy(rule), name, tmp_path)
    raw = base64.b64decode(plain.annotations["dev.cosignproject.cosign/signature"])
    entry = LOG.entry(maker=key.pem, signature=raw, text=text, at=1)
    attach(place.registry, HOSTED, digest, [Signed(text, {**plain.annotations, "dev.sigstore.cosign/bundle": entry})])
    (tmp_path / "logged").mkdir()
    assert place.accepts(policy(rule), name, tmp_path / "logged")


@pytest.mark.parametrize(
    ("change", "rule", "expected"),
    [
        ({}, {"subjectEmail": EMAIL}, True),
        ({}, {"subjectHostname": "build.example.com"}, True),
        ({}, {"subjectHostname": "other.example.com"}, False),
        ({}, {"subjectEmail": EMAIL, "subjectHostname": "other.example.com"}, False),
        ({"days": 0.01}, {"subjectEmail": EMAIL}, False),  # began an hour ago
        ({"usage": None}, {"subjectEmail": EMAIL}, True),
    ],
)
def test_an_own_certificate_authority(place, tmp_path, change, rule, expected):
    digest, name = place.image()
    key = SigstoreKey.ecdsa()
    certificate = pem_of(ROOT.issue(key, email=EMAIL, hosts=["build.example.com"], **change)).decode()
    signed = key.sign(payload(digest, name, SIGSTORE), **{"dev.sigstore.cosign/certificate": certificate})
    attach(place.registry, HOSTED, digest, [signed])
    pki = {"caRootsData": base64.b64encode(ROOT.pem).decode(), **rule}
    assert place.accepts(policy({"type": "sigstoreSigned", "pki": pki}), name, tmp_path) is expected


def test_a_verdict_names_image_policy_scope_and_reason(place, tmp_path):
    digest, name = place.image()
    attach(place.registry, HOSTED, digest, [SigstoreKey.ecdsa().sign(payload(digest, name, SIGSTORE))])
    rules = tmp_path / "policy.json"
    rules.write_text(
        json.dumps({"default": [{"type": "reject"}], "transports": {"docker": {place.registry.host: [with_key(MADE["rsa"])]}}})
    )
    said = str(place.verdict(rules, name, tmp_path / "ours"))
    assert said.startswith(
        f"cannot use image {name}: signature policy {rules}, scope '{place.registry.host}', demands sigstoreSigned"
    )
    assert said.endswith("none of 1 signatures is accepted: it is by no key that the policy has")
