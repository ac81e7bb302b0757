"""trust.rekor: entries of a log of our own, and every way to change one."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.signing import Log, SigstoreKey

from criollo.errors import Denied, Invalid
from criollo.trust.rekor import check

LOG, MAKER = Log(SigstoreKey.ecdsa()), SigstoreKey.ecdsa()
LOGS = [LOG.key.private.public_key()]
TEXT = b'{"a":1}'
SIGNATURE = MAKER.raw(TEXT)
ENTRY = LOG.entry(maker=MAKER.pem, signature=SIGNATURE, text=TEXT, at=1_700_000_000)


def asked(entry, *, logs=LOGS, maker=MAKER.pem, signature=SIGNATURE, payload=TEXT):
    return check(entry, logs, maker=maker, signature=signature, payload=payload)


def entry(**change):
    return LOG.entry(**{"maker": MAKER.pem, "signature": SIGNATURE, "text": TEXT, "at": 7, **change})


def test_a_log_says_when():
    assert asked(ENTRY) == 1_700_000_000


def test_one_of_several_logs_is_enough():
    assert asked(ENTRY, logs=[SigstoreKey.ecdsa().private.public_key(), *LOGS])


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("no log", {"logs": [SigstoreKey.ecdsa().private.public_key()]}),
        ("no log", {"logs": []}),
        ("another key", {"maker": SigstoreKey.ecdsa().pem}),
        ("another signature", {"signature": b"x"}),
        ("another text", {"payload": b"x"}),
        ("not one block", {"maker": MAKER.pem * 2}),
    ],
)
def test_an_entry_is_about_one_signature(what, change):
    with pytest.raises(Denied, match=what):
        asked(ENTRY, **change)


@pytest.mark.parametrize(
    "change",
    [{"kind": "intoto"}, {"apiVersion": "0.0.2"}, {"spec": {}}, {"spec": 7}, {"maker": b"x"}, {"maker": MAKER.pem + b"x"}],
)
def test_entries_of_another_kind(change):
    with pytest.raises((Denied, Invalid)):
        asked(entry(**change))


def changed(**members):
    bundle = json.loads(ENTRY)
    bundle["Payload"].update(members)
    return json.dumps({key: value for key, value in bundle.items() if value is not None})


@pytest.mark.parametrize(
    "members",
    [
        {"integratedTime": 5},
        {"integratedTime": 1.7e9},
        {"integratedTime": True},
        {"logIndex": 2**60},
        {"logID": "a\\u0000"},
        {"logID": 7},
        {"body": ""},
        {"more": 1},
        {"logIndex": "7"},
    ],
)
def test_what_the_log_signed_cannot_be_changed(members):
    with pytest.raises((Denied, Invalid)):
        asked(changed(**members))


@pytest.mark.parametrize("text", ["", "[]", "{}", ENTRY[:-1], ENTRY.replace("Payload", "payload"), ENTRY + "x"])
def test_malformed_entries(text):
    with pytest.raises(Invalid):
        asked(text)


def test_an_entry_with_other_spelling_of_the_same_is_the_same():
    assert asked(json.dumps(json.loads(ENTRY), indent=2)) == 1_700_000_000


@given(st.integers(0, len(ENTRY) - 1), st.characters(codec="ascii"))
def test_no_other_byte_makes_another_time(at, letter):
    try:
        found = asked(ENTRY[:at] + letter + ENTRY[at + 1 :])
    except (Denied, Invalid):
        return
    assert found == 1_700_000_000


def test_the_log_counts_the_digest_it_knows():
    record = json.loads(base64.b64decode(json.loads(ENTRY)["Payload"]["body"]))
    record["spec"]["data"]["hash"]["algorithm"] = "sha512"
    with pytest.raises(Denied, match="sha256"):
        asked(entry(spec=record["spec"]))
