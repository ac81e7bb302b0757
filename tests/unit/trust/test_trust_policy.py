import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Denied, Invalid
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.trust.policy import Policy, find_policy

ACCEPT = [{"type": "insecureAcceptAnything"}]
REJECT = [{"type": "reject"}]
SHA = str(Digest.of(b"x"))


def policy(default, **transports):
    return Policy.parse(json.dumps({"default": default, "transports": transports}).encode(), where="policy.json")


def accepts(judge, text):
    try:
        judge.judge(Reference.parse(text))
    except Denied:
        return False
    return True


def test_the_default_holds_where_nothing_else_matches():
    assert accepts(policy(ACCEPT), "busybox")
    assert not accepts(policy(REJECT), "busybox")
    assert accepts(Policy.accept_all(), "busybox")


@pytest.mark.parametrize(
    ("scope", "image", "matches"),
    [
        ("docker.io/library/busybox:1", "busybox:1", True),
        ("docker.io/library/busybox:1", "busybox:2", False),
        ("docker.io/library/busybox:1", f"busybox:1@{SHA}", True),
        (f"docker.io/library/busybox@{SHA}", f"busybox@{SHA}", True),
        ("docker.io/library/busybox", "busybox:2", True),
        ("docker.io/library/busybox", "docker.io/library/busybox2", False),
        ("docker.io/library", "busybox", True),
        ("docker.io", "team/app", True),
        ("docker.io", "docker.io.evil.example/app", False),
        ("host", "host.evil/app", False),
        ("a.b", "A.B/app", True),
        ("A.B/team", "a.b/team/app", True),
        ("a.b", "a.b:5000/app", False),
        ("a.b:5000", "a.b:5000/x/y", True),
        ("*.example.com", "r.example.com/x", True),
        ("*.example.com", "a.r.example.com/x", True),
        ("*.example.com", "example.com/x", False),
        ("*.example.com", "badexample.com/x", False),
        ("*.example.com:5000", "r.example.com:5000/x", True),
        ("", "a.b/c", True),
    ],
)
def test_scopes_match_whole_words(scope, image, matches):
    assert accepts(policy(REJECT, docker={scope: ACCEPT}), image) is matches
    assert accepts(policy(ACCEPT, docker={scope: REJECT}), image) is not matches


def test_the_most_specific_scope_decides_alone():
    judge = policy(
        REJECT, docker={"": REJECT, "a.b": ACCEPT, "a.b/team": REJECT, "a.b/team/app": ACCEPT, "a.b/team/app:bad": REJECT}
    )
    assert accepts(judge, "a.b/x")
    assert not accepts(judge, "a.b/team/x")
    assert accepts(judge, "a.b/team/app:good")
    assert not accepts(judge, "a.b/team/app:bad")


def test_a_rejected_tag_stays_rejected_beside_an_accepted_digest():
    judge = policy(ACCEPT, docker={f"a.b/c@{SHA}": ACCEPT, "a.b/c:bad": REJECT})
    assert not accepts(judge, f"a.b/c:bad@{SHA}")


def test_other_transports_do_not_concern_registries():
    assert not accepts(policy(REJECT, atomic={"a.b": ACCEPT}, dir={"": ACCEPT}, docker={}), "a.b/c")


def test_all_requirements_of_a_scope_must_hold():
    assert not accepts(policy([*ACCEPT, *REJECT]), "busybox")


@pytest.mark.parametrize("kind", ["signedBy", "sigstoreSigned", "signedBaseLayer"])
def test_a_demanded_signature_denies_until_it_can_be_verified(kind):
    with pytest.raises(Denied, match=rf"{kind}, which this version cannot verify"):
        policy([{"type": kind}]).judge(Reference.parse("busybox"))


def test_a_denial_names_image_file_and_scope():
    with pytest.raises(
        Denied,
        match=r"busybox:latest: signature policy policy\.json, scope 'docker\.io', rejects it",
    ):
        policy(ACCEPT, docker={"docker.io": REJECT}).judge(Reference.parse("busybox"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"default":[]}',
        '{"default":null}',
        '{"default":{"type":"reject"}}',
        '{"default":[{"type":"accept"}]}',
        '{"default":[{}]}',
        '{"default":[{"type":7}]}',
        '{"default":[{"type":"reject","keyPath":"/x"}]}',
        '{"default":[{"type":"signedBy","keypath":"/x"}]}',
        '{"default":[{"type":"reject"}],"default":[{"type":"insecureAcceptAnything"}]}',
        '{"default":[{"type":"reject"}],"Transports":{}}',
        '{"default":[{"type":"reject"}],"transports":[]}',
        '{"default":[{"type":"reject"}],"transports":{"docker":[]}}',
        '{"default":[{"type":"reject"}],"transports":{"docker":{"a":[]}}}',
        '{"default":[{"type":"reject"}],"transports":{"docker":{"a":[{"type":"x"}]}}}',
        '{"default":[{"type":"reject"}],"transports":{"docker":{"a*.b":[{"type":"reject"}]}}}',
        '{"default":[{"type":"reject"}],"transports":{"docker":{"*.a/b":[{"type":"reject"}]}}}',
        '{"default":[{"type":"reject"}],"transports":{"dir":{"a":[{"type":"x"}]}}}',
    ],
)
def test_a_policy_with_anything_wrong_is_refused_whole(text):
    with pytest.raises(Invalid, match=r"policy\.json"):
        Policy.parse(text.encode(), where="policy.json")


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_read(raw):
    with pytest.raises(Invalid):
        Policy.parse(raw, where="policy.json")


def test_a_missing_policy_refuses(tmp_path):
    with pytest.raises(Invalid, match=r"absent\.json"):
        Policy.load(tmp_path / "absent.json")


def test_a_policy_is_found_in_the_home_directory_first(tmp_path):
    path = tmp_path / ".config/containers/policy.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"default": REJECT}))
    assert find_policy({"HOME": str(tmp_path)}) == path
    assert not accepts(Policy.load(path), "busybox")
