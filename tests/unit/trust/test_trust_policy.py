import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.trust.policy import Policy, find_policy

ACCEPT = [{"type": "insecureAcceptAnything"}]
REJECT = [{"type": "reject"}]
SHA = str(Digest.of(b"x"))


def policy(default, **transports):
    return Policy.parse(json.dumps({"default": default, "transports": transports}).encode(), where="policy.json")


def accepts(judge, text):
    return all(each.type == "insecureAcceptAnything" for each in judge.demands(Reference.parse(text))[1])


def test_the_default_holds_where_nothing_else_matches():
    assert accepts(policy(ACCEPT), "busybox")
    assert not accepts(policy(REJECT), "busybox")
    assert accepts(Policy.accept_all(), "busybox")


@pytest.mark.parametrize(
    ("scope", "image", "matches"),
    [
        ("docker.io/library/busybox:1", "busybox:1", True),
        ("docker.io/library/busybox:1", "busybox:2", False),
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
        ("*.example.com", "r.example.com:5000/x", True),
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


def test_a_digest_decides_and_a_tag_beside_it_can_only_demand_more():
    assert not accepts(policy(REJECT, docker={"a.b/c:good": ACCEPT}), f"a.b/c:good@{SHA}")
    assert not accepts(policy(ACCEPT, docker={"a.b/c:bad": REJECT}), f"a.b/c:bad@{SHA}")
    assert accepts(policy(REJECT, docker={f"a.b/c@{SHA}": ACCEPT}), f"a.b/c:any@{SHA}")


def test_the_deciding_scope_is_named():
    assert policy(ACCEPT, docker={"docker.io": REJECT}).demands(Reference.parse("busybox"))[0] == "docker.io"
    assert policy(ACCEPT, docker={"": REJECT}).demands(Reference.parse("busybox"))[0] == "docker default"
    assert policy(ACCEPT).demands(Reference.parse("busybox"))[0] == "default"


def test_images_of_other_transports_have_their_own_default():
    judge = policy(REJECT, **{"docker-archive": {"": ACCEPT}, "oci": {"/x": ACCEPT}})
    assert judge.demands_of_file("docker-archive", Path("/a.tar"))[0] == "docker-archive default"
    assert judge.demands_of_file("oci", Path("/y"))[0] == "default"
    assert judge.demands_of_file("oci", Path("/x/y"))[0] == "/x"
    assert judge.demands_of_file("oci", Path("/xy"))[0] == "default"


@pytest.mark.parametrize(
    ("transport", "scope"),
    [("docker-archive", "/srv/images"), ("tarball", "/srv/a.tar"), ("sif", "srv"), ("docker", "*.example.com:5000")],
)
def test_a_scope_that_the_transport_does_not_have_refuses_the_policy(transport, scope):
    with pytest.raises(Invalid, match=f"transports.{transport}"):
        policy(REJECT, **{transport: {scope: ACCEPT}})


def test_a_host_in_other_letters_is_no_second_scope():
    with pytest.raises(Invalid, match=r"'a\.b/c' twice"):
        policy(REJECT, docker={"A.B/c": REJECT, "a.b/c": ACCEPT})


@pytest.mark.parametrize(
    ("transport", "scope"),
    [("oci", "srv/images"), ("oci", "/"), ("oci", "/srv/"), ("oci-archive", "/srv//a"), ("dir", "/srv/../a"), ("oci", "/a/.")],
)
def test_a_scope_of_files_that_can_never_match_refuses_the_policy(transport, scope):
    with pytest.raises(Invalid, match=f"transports.{transport}"):
        policy(REJECT, **{transport: {scope: ACCEPT}})


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
        '{"default":[{"type":"signedBy","keyType":"GPGKeys"}]}',
        '{"default":[{"type":"sigstoreSigned"}]}',
        '{"default":[{"type":"signedBaseLayer"}]}',
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
