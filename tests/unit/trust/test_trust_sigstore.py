"""trust.sigstore: the question to the child, and what is made of its answer."""

import asyncio
import base64
import subprocess
import sys

import pytest
from support.signing import SIGSTORE, SIGSTORE_LAYER, SigstoreKey, payload

from criollo.aio import threads
from criollo.errors import Denied, HostFailed
from criollo.oci.signature import sigstore as made
from criollo.oci.signature import simple
from criollo.trust import sigstore
from criollo.trust.requirements import parse_requirements

KEY = SigstoreKey.ecdsa()
TEXT = payload("sha256:" + "0" * 64, "a.b/c:v1", SIGSTORE)


def requirement(**fields):
    return parse_requirements([{"type": "sigstoreSigned", **fields}], "policy")[0]


def signature(key=KEY):
    return made(TEXT, media_type=SIGSTORE_LAYER, annotations=dict(key.sign(TEXT).annotations))


def verify(rule, *signatures):
    try:
        return asyncio.run(sigstore.verify(rule, signatures))
    finally:
        threads.close()


def test_a_child_answers_for_each_signature(tmp_path):
    (tmp_path / "key.pem").write_bytes(KEY.pem)
    for rule in (requirement(keyPath=str(tmp_path / "key.pem")), requirement(keyData=base64.b64encode(KEY.pem).decode())):
        outcomes = verify(rule, signature(), signature(SigstoreKey.ecdsa()))
        assert [each.reason for each in outcomes] == ["", "it is by no key that the policy has"]


def test_a_key_that_is_not_there(tmp_path):
    with pytest.raises(HostFailed, match=r"absent\.pem"):
        verify(requirement(keyPath=str(tmp_path / "absent.pem")), signature())


def test_a_key_that_is_none():
    with pytest.raises(Denied, match="no public key"):
        verify(requirement(keyData=base64.b64encode(b"x").decode()), signature())


def test_only_signatures_of_this_kind_are_looked_at():
    assert sigstore.is_signature(signature())
    assert not sigstore.is_signature(made(TEXT, media_type="text/plain", annotations={}))
    assert not sigstore.is_signature(simple(b"x"))


def test_the_asking_side_never_loads_the_library():
    code = "import sys, criollo.engine.opening, criollo.trust.judge; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
