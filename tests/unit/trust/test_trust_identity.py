import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.trust.identity import SignedIdentity, parse_identity

SHA, OTHER = str(Digest.of(b"x")), str(Digest.of(b"y"))


def fits(identity, image, signed):
    return parse_identity(identity, "x").fits(Reference.parse(image), signed)


def kind(name, **more):
    return {"type": name, **more}


def moved(prefix, signed_prefix):
    return kind("remapIdentity", prefix=prefix, signedPrefix=signed_prefix)


MOVED = moved("a.b/team", "x.y/z")


@pytest.mark.parametrize(
    ("identity", "signed", "expected"),
    [
        (kind("exactReference", dockerReference="x.y/z:1"), "x.y/z:1", True),
        (kind("exactReference", dockerReference="x.y/z:1"), "x.y/z:2", False),
        (kind("exactRepository", dockerRepository="x.y/z"), "x.y/z:1", True),
        (kind("matchExact"), "x.y/z:1", False),
        (kind("matchRepoDigestOrExact"), f"x.y/z@{SHA}", False),
        (kind("matchRepository"), "x.y/z:1", False),
        (MOVED, "x.y/z:1", False),
    ],
)
def test_an_image_without_a_name_fits_only_what_names_itself(identity, signed, expected):
    made = parse_identity(identity, "x")
    assert made.fits(None, signed) is expected
    assert made.names_itself or not expected


@pytest.mark.parametrize(
    ("identity", "image", "signed", "expected"),
    [
        (kind("matchExact"), "a.b/c:v1", "a.b/c:v1", True),
        (kind("matchExact"), "a.b/c:v1", "a.b/c:v2", False),
        (kind("matchExact"), "a.b/c", "a.b/c", False),  # a signature names its tag
        (kind("matchExact"), "busybox:1", "docker.io/library/busybox:1", True),
        (kind("matchExact"), "busybox:1", "busybox:1", True),
        (kind("matchExact"), f"a.b/c@{SHA}", f"a.b/c@{SHA}", True),
        (kind("matchExact"), f"a.b/c@{SHA}", "a.b/c:v1", False),
        (kind("matchExact"), f"a.b/c:v1@{SHA}", f"a.b/c@{SHA}", True),  # the digest counts
        (kind("matchExact"), f"a.b/c:v1@{SHA}", "a.b/c:v1", False),
        (kind("matchRepoDigestOrExact"), "a.b/c:v1", "a.b/c:v1", True),
        (kind("matchRepoDigestOrExact"), "a.b/c:v1", "a.b/c:v2", False),
        (kind("matchRepoDigestOrExact"), f"a.b/c@{SHA}", "a.b/c:v2", True),
        (kind("matchRepoDigestOrExact"), f"a.b/c@{SHA}", f"a.b/c@{OTHER}", True),  # the payload's digest is compared elsewhere
        (kind("matchRepoDigestOrExact"), f"a.b/c@{SHA}", "a.b/c", False),
        (kind("matchRepoDigestOrExact"), f"a.b/c@{SHA}", "a.b/d:v1", False),
        (kind("matchRepository"), "a.b/c:v1", "a.b/c", True),
        (kind("matchRepository"), "a.b/c:v1", "a.b/cc", False),
        (kind("exactReference", dockerReference="x.y/z:1"), "a.b/c:v1", "x.y/z:1", True),
        (kind("exactReference", dockerReference="x.y/z:1"), "a.b/c:v1", "x.y/z", False),
        (kind("exactRepository", dockerRepository="x.y/z"), "a.b/c:v1", "x.y/z", True),
        (kind("exactRepository", dockerRepository="x.y/z:any"), "a.b/c:v1", "x.y/z:1", True),
        (MOVED, "a.b/team/app:v1", "x.y/z/app:v1", True),
        (MOVED, "a.b/team/app:v1", "a.b/team/app:v1", False),
        (MOVED, "a.b/teams/app:v1", "a.b/teams/app:v1", True),
        (MOVED, "a.b/team:v1", "x.y/z:v1", True),
        (MOVED, f"a.b/team/app@{SHA}", "x.y/z/app:any", True),
        (MOVED, "a.b/team/app:v1", "x.y/z/app", False),
        (moved("docker.io", "a.b"), "busybox:1", "a.b/library/busybox:1", True),
        (moved("docker.io/library", "a.b"), "busybox:1", "a.b/busybox:1", True),
        (moved("docker.io/team", "a.b/x"), "team/app:1", "a.b/x/app:1", True),
        (moved("docker.io/library/busybox", "a.b/x"), "busybox:1", "a.b/x:1", True),
        (moved("a.b", "docker.io"), "a.b/library/busybox:1", "busybox:1", True),
        (moved("a.b/x", "docker.io/library"), "a.b/x/busybox:1", "docker.io/library/busybox:1", True),
        (moved("a.b", "docker.io"), "a.b/busybox:1", "docker.io/library/busybox:1", False),  # nothing is added to a name
        (moved("a.b/c", "x.y"), "a.b/c:v1", "x.y:v1", False),  # a host alone is no name
        (moved("a.b:5000", "localhost"), "a.b:5000/c:v1", "localhost/c:v1", True),
        (kind("matchExact"), "a.b/c:v1", "NO NAME", False),
        (kind("matchExact"), "a.b/c:v1", "", False),
    ],
)
def test_names_of_signatures(identity, image, signed, expected):
    assert fits(identity, image, signed) is expected


def test_without_a_word_the_repository_and_digest_or_the_exact_name_fits():
    assert SignedIdentity() == parse_identity(kind("matchRepoDigestOrExact"), "x")


@pytest.mark.parametrize(
    "value",
    [
        None,
        "matchExact",
        {},
        kind("none"),
        kind(["matchExact"]),
        kind("matchExact", prefix="a.b"),
        kind("exactReference"),
        kind("exactReference", dockerReference="a.b/c"),
        kind("exactReference", dockerReference="A B"),
        kind("exactRepository", dockerRepository=""),
        kind("exactRepository", dockerReference="a.b/c"),
        kind("remapIdentity", prefix="a.b"),
        moved("a.b/c:v1", "x.y"),
        moved(f"a.b/c@{SHA}", "x.y"),
        moved("a.b/", "x.y"),
        moved("short", "x.y"),
        moved("short/name", "x.y"),
        moved("index.docker.io", "x.y"),
        moved("A.b", "x.y"),
        moved("a.b", ""),
    ],
)
def test_what_is_no_identity(value):
    with pytest.raises(Invalid, match="policy"):
        parse_identity(value, "policy")


@given(st.text(max_size=40))
def test_any_name_in_a_signature_is_compared(signed):
    for name in ("matchExact", "matchRepoDigestOrExact", "matchRepository"):
        assert not fits(kind(name), "a.example/never:drawn", signed)
