import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.oci.signature import SignatureKind
from criollo.trust.requirements import MAX_KEYS, parse_requirements

DATA = base64.b64encode(b"key").decode()
GPG = {"type": "signedBy", "keyType": "GPGKeys"}
SIG = {"type": "sigstoreSigned"}
FULCIO = {"caData": DATA, "oidcIssuer": "https://i", "subjectEmail": "a@b"}
PKI = {"caRootsData": DATA, "subjectEmail": "a@b"}


def parsed(value):
    return parse_requirements([value], "policy")[0]


@pytest.mark.parametrize(
    "value",
    [
        {**GPG, "keyPath": "/k"},
        {**GPG, "keyPaths": ["/k", "/l"]},
        {**GPG, "keyData": DATA},
        {**GPG, "keyData": DATA, "signedIdentity": {"type": "matchExact"}},
        {**SIG, "keyPath": "/k"},
        {**SIG, "keyPaths": ["/k"]},
        {**SIG, "keyData": DATA},
        {**SIG, "keyDatas": [DATA, DATA]},
        {**SIG, "keyData": DATA, "rekorPublicKeyPath": "/r"},
        {**SIG, "fulcio": FULCIO, "rekorPublicKeyDatas": [DATA]},
        {**SIG, "pki": PKI},
        {**SIG, "pki": {"caRootsPath": "/r", "caIntermediatesPath": "/i", "subjectHostname": "h"}},
    ],
)
def test_requirements_that_signatures_can_meet(value):
    requirement = parsed(value)
    assert requirement.is_verifiable
    assert requirement.signed_with is (SignatureKind.SIMPLE if value["type"] == "signedBy" else SignatureKind.SIGSTORE)
    assert requirement.summary.startswith(value["type"] + " (")


@pytest.mark.parametrize(
    "value",
    [
        {"type": "insecureAcceptAnything"},
        {"type": "reject"},
        {"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}},
        {**GPG, "keyType": "X509Certificates", "keyData": DATA},
    ],
)
def test_requirements_that_no_signature_meets(value):
    assert not parsed(value).is_verifiable


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"type": None},
        {"type": ["reject"]},
        {"type": "reject", "x": 1},
        {"type": "signedBaseLayer"},
        {"type": "signedBy", "keyPath": "/k"},
        GPG,
        {**GPG, "keyType": "gpgkeys", "keyPath": "/k"},
        {**GPG, "keyPath": "/k", "keyData": DATA},
        {**GPG, "keyPath": ""},
        {**GPG, "keyPaths": []},
        {**GPG, "keyPaths": ["/k", 7]},
        {**GPG, "keyPaths": ["/k"] * (MAX_KEYS + 1)},
        {**GPG, "keyDatas": [DATA]},
        {**GPG, "keyData": "%"},
        {**GPG, "keyData": DATA, "signedIdentity": None},
        {**GPG, "KeyData": DATA},
        SIG,
        {**SIG, "keyData": DATA, "keyPath": "/k"},
        {**SIG, "keyData": DATA, "fulcio": FULCIO, "rekorPublicKeyPath": "/r"},
        {**SIG, "keyDatas": []},
        {**SIG, "fulcio": FULCIO},
        {**SIG, "fulcio": {**FULCIO, "x": 1}, "rekorPublicKeyPath": "/r"},
        {**SIG, "fulcio": {**FULCIO, "caPath": "/c"}, "rekorPublicKeyPath": "/r"},
        {**SIG, "fulcio": {**FULCIO, "oidcIssuer": ""}, "rekorPublicKeyPath": "/r"},
        {**SIG, "fulcio": {"caData": DATA, "oidcIssuer": "i"}, "rekorPublicKeyPath": "/r"},
        {**SIG, "fulcio": FULCIO, "rekorPublicKeyPath": "/r", "rekorPublicKeyData": DATA},
        {**SIG, "pki": PKI, "rekorPublicKeyPath": "/r"},
        {**SIG, "pki": {"caRootsData": DATA}},
        {**SIG, "pki": {"subjectEmail": "a@b"}},
        {**SIG, "pki": {**PKI, "x": 1}},
        {**SIG, "keyData": DATA, "x": 1},
    ],
)
def test_requirements_with_a_fault(value):
    with pytest.raises(Invalid, match="policy"):
        parsed(value)


def test_all_files_of_a_requirement_are_known(tmp_path):
    fulcio = {"caPath": "/ca", "oidcIssuer": "i", "subjectEmail": "a@b"}
    assert parsed({**SIG, "fulcio": fulcio, "rekorPublicKeyPaths": ["/r", "/s"]}).paths == ("/r", "/s", "/ca")
    pki = {"caRootsPath": "/roots", "caIntermediatesPath": "/between", "subjectEmail": "a@b"}
    assert parsed({**SIG, "pki": pki}).paths == ("/roots", "/between")
    (tmp_path / "k").write_bytes(b"key")
    assert parsed({**GPG, "keyPath": str(tmp_path / "k")}).keys.read() == [b"key"]
    assert parsed({**GPG, "keyData": DATA}).keys.read() == [b"key"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "keyData", "keyPath", "fulcio", "pki"]), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_any_value_is_read_or_refused(value):
    try:
        parse_requirements(value, "policy")
    except Invalid as error:
        assert str(error).startswith("policy")  # noqa: PT017 - most values are refused, not all
