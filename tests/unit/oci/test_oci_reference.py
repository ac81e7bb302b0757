import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference, is_short

SHA = str(Digest.of(b"x"))


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1", "docker.io/library/busybox:1"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x:y", "localhost:5000/x:y"),
        ("Registry.Example.COM/x", "registry.example.com/x:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ("a.b/c/d__e/f--g.h_i:T.a-g_1", "a.b/c/d__e/f--g.h_i:T.a-g_1"),
        (f"busybox@{SHA}", f"docker.io/library/busybox@{SHA}"),
        (f"busybox:1@{SHA}", f"docker.io/library/busybox:1@{SHA}"),
    ],
)
def test_references_become_complete(text, full):
    ref = Reference.parse(text)
    assert str(ref) == full
    assert Reference.parse(full) == ref


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            ":",
            "/",
            "@",
            ":tag",
            "x:",
            "x/",
            "/x",
            "a//b",
            "a:b:c",
            "UPPER/x",
            "a/B",
            "x\n",
            "x ",
            "x:t\n",
            "-x",
            "x-",
            "_x",
        ),
        *(
            "x@",
            "x@sha256:",
            "x@" + SHA + "a",
            "x@" + SHA.upper(),
            f"x@{SHA}@{SHA}",
            "x:" + "t" * 129,
            "a" * 64,
            "x:.tag",
            "x:-tag",
        ),
        *(
            "host:0/x",
            "host:65536/x",
            "host:/x",
            "host:99999999/x",
            "é.example/x",
            "ex_ample.com:1/x",
            "a..b/x",
            "-a.b/x",
            "http://h/x",
        ),
        *(
            "x?y=1",
            "x#y",
            "x%2e",
            "../x",
            "a.b/../x",
            "a.b/./x",
            "a.b/x\0",
            "x" * 10_000,
            "a.b/" + "x" * 255,
            "[::1/x",
            "::1/x",
        ),
    ],
)
def test_what_breaks_the_grammar_is_refused(text):
    with pytest.raises(Invalid):
        Reference.parse(text)


@given(
    st.lists(st.sampled_from([*"aB0._-/:@[]\n é", SHA, "sha256:", "docker.io"]), max_size=12).map("".join)
    | st.text(max_size=60)
)
def test_parsing_gives_a_stable_reference_or_invalid(text):
    try:
        ref = Reference.parse(text)
    except Invalid:
        return
    assert Reference.parse(str(ref)) == ref
    assert ref.tag or ref.digest
    assert ref.domain == ref.domain.lower()
    assert str(ref).isprintable()


def test_short_names_go_to_the_given_registry():
    assert str(Reference.parse("app:1", default_domain="registry.example.com")) == "registry.example.com/app:1"
    assert str(Reference.parse("a.b/app", default_domain="registry.example.com")) == "a.b/app:latest"


@pytest.mark.parametrize(
    ("text", "short"), [("app", True), ("team/app:1", True), ("a.b/app", False), ("localhost/app", False), ("h:1/a", False)]
)
def test_a_name_without_registry_is_short(text, short):
    assert is_short(text) is short


def test_identifier_prefers_the_digest():
    ref = Reference.parse("a.b/c:tag")
    assert ref.identifier == "tag"
    assert ref.with_digest(Digest(SHA)).identifier == SHA
    assert str(ref.with_digest(Digest(SHA))) == f"a.b/c@{SHA}"
    assert str(ref.with_tag("other")) == "a.b/c:other"
    with pytest.raises(Invalid):
        ref.with_tag("a/b")


@pytest.mark.parametrize(
    ("text", "scopes"),
    [
        (
            "a.b.example:5000/team/app:v1",
            "a.b.example:5000/team/app:v1 a.b.example:5000/team/app a.b.example:5000/team "
            "a.b.example:5000 *.b.example *.example",
        ),
        ("localhost/app:1", "localhost/app:1 localhost/app localhost"),
        ("[::1]:5000/app:1", "[::1]:5000/app:1 [::1]:5000/app [::1]:5000"),
    ],
)
def test_rules_may_name_an_image_and_all_that_is_above_it(text: str, scopes: str) -> None:
    assert list(Reference.parse(text).scopes()) == scopes.split()
