import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.oci.digest import Digest
from criollo.oci.signature import SignatureKind
from criollo.trust.payload import Claim, parse_payload

SHA = str(Digest.of(b"x"))
TYPES = {SignatureKind.SIMPLE: "atomic container signature", SignatureKind.SIGSTORE: "cosign container image signature"}


def made(kind=SignatureKind.SIMPLE, **change):
    whole = {
        "critical": {
            "type": TYPES[kind],
            "image": {"docker-manifest-digest": SHA},
            "identity": {"docker-reference": "a.b/c:v1"},
        },
        "optional": {"creator": "x", "timestamp": 7, "further": [1]},
    }
    return json.dumps({**whole, **change}).encode()


def critical(**change):
    whole = json.loads(made())["critical"]
    return made(critical={key: value for key, value in {**whole, **change}.items() if value is not None})


@pytest.mark.parametrize("kind", SignatureKind)
def test_a_payload_claims_a_digest_and_a_name(kind):
    assert parse_payload(made(kind), kind) == Claim(Digest(SHA), "a.b/c:v1")


def test_one_kind_does_not_pass_for_the_other():
    with pytest.raises(Invalid, match="type"):
        parse_payload(made(SignatureKind.SIMPLE), SignatureKind.SIGSTORE)


def test_cosign_writes_null_for_nothing():
    assert parse_payload(made(SignatureKind.SIGSTORE, optional=None), SignatureKind.SIGSTORE)
    with pytest.raises(Invalid):
        parse_payload(made(optional=None), SignatureKind.SIMPLE)


@pytest.mark.parametrize("kind", SignatureKind)
@pytest.mark.parametrize(
    "optional", [{"timestamp": None}, {"creator": None}, {"timestamp": 1e3}, {"timestamp": -5}, {"timestamp": 2**62}]
)
def test_who_and_when_may_be_said_or_not(kind, optional):
    assert parse_payload(made(kind, optional=optional), kind)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        made(more=1),
        made(optional=[]),
        made(optional={"timestamp": "7"}),
        made(optional={"timestamp": 7.5}),
        made(optional={"timestamp": True}),
        made(optional={"timestamp": 2**63}),
        made(optional={"timestamp": -(2**63) - 2**11}),
        made(optional={"timestamp": 1e300}),
        made().replace(b'"timestamp": 7', b'"timestamp": 1e999'),
        made(optional={"creator": 7}),
        critical(type=None),
        critical(more=1),
        critical(image={}),
        critical(image={"docker-manifest-digest": "sha256:0"}),
        critical(image={"docker-manifest-digest": 7}),
        critical(image={"docker-manifest-digest": SHA, "more": 1}),
        critical(identity={"docker-reference": ""}),
        critical(identity=[]),
        made()[:-1] + b',"critical":{}}',
        made() + b"x",
    ],
)
def test_what_is_no_payload(raw):
    with pytest.raises(Invalid):
        parse_payload(raw, SignatureKind.SIMPLE)


@given(st.binary(max_size=60))
def test_any_bytes_are_refused(raw):
    with pytest.raises(Invalid):
        parse_payload(raw, SignatureKind.SIMPLE)
