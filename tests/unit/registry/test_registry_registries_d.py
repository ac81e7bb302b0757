import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.registry.registries_d import SYSTEM_DIRECTORY, SignaturePlaces, default_lookaside, find_directory

SHA = str(Digest.of(b"x"))


def places(directory, **files):
    for name, content in files.items():
        (directory / f"{name}.yaml").write_text(content if isinstance(content, str) else json.dumps(content))
    return SignaturePlaces.load(directory)


def test_the_most_specific_scope_that_says_something_decides(tmp_path):
    found = places(
        tmp_path,
        a={"default-docker": {"lookaside": "https://default.example/", "use-sigstore-attachments": True}},
        b={"docker": {"a.b": {"lookaside": "https://host.example"}, "a.b/team": {"use-sigstore-attachments": False}}},
        c={"docker": {"a.b/team/app:v1": {"sigstore": "file:///old"}, f"a.b/team/app@{SHA}": {"lookaside": "file:///digest"}}},
        d={"docker": {"*.w.example": {"lookaside": "file:///wild"}}},
    )
    for name, lookaside, attachments in (
        ("busybox", "https://default.example/", True),
        ("a.b/x", "https://host.example", True),
        ("A.B/x", "https://host.example", True),
        ("a.b/team/x", "https://host.example", False),
        ("a.b/team/app:v1", "file:///old", False),
        (f"a.b/team/app@{SHA}", "file:///digest", False),
        (f"a.b/team/app:v1@{SHA}", "file:///digest", False),
        ("r.w.example:5000/x", "file:///wild", True),
        ("w.example/x", "https://default.example/", True),
    ):
        reference = Reference.parse(name)
        assert (found.lookaside(reference), found.uses_attachments(reference)) == (lookaside, attachments), name


def test_a_new_name_wins_over_its_old_one(tmp_path):
    said = {
        "lookaside": "file:///new",
        "sigstore": "file:///old",
        "lookaside-staging": "file:///s",
        "sigstore-staging": "file:///t",
    }
    assert places(tmp_path, a={"default-docker": said}).lookaside(Reference.parse("x")) == "file:///new"


def test_staging_is_for_writing_only(tmp_path):
    assert places(tmp_path, a={"default-docker": {"lookaside-staging": "file:///s"}}).lookaside(Reference.parse("x")) is None


@pytest.mark.parametrize("content", ["", "# nothing\n", "{}", "docker:\n", "default-docker:\n", "docker: {a.b: }", "other: 1"])
def test_files_that_say_nothing(tmp_path, content):
    found = places(tmp_path, a=content)
    assert found.lookaside(Reference.parse("a.b/c")) is None
    assert not found.uses_attachments(Reference.parse("a.b/c"))


def test_no_directory_says_nothing(tmp_path):
    assert SignaturePlaces.load(tmp_path / "absent").lookaside(Reference.parse("x")) is None
    assert SignaturePlaces.load(None).lookaside(Reference.parse("x")) is None


def test_only_yaml_files_count(tmp_path):
    (tmp_path / "a.yml").write_text("docker: 7")
    assert SignaturePlaces.load(tmp_path).lookaside(Reference.parse("x")) is None


@pytest.mark.parametrize(
    "content",
    [
        "[",
        "7",
        "docker: 7",
        "docker: {7: {}}",
        "docker: {'': {}}",
        "docker: {a.b: 7}",
        "default-docker: 7",
        "default-docker: {lookaside: 7}",
        "default-docker: {lookaside: 'ftp://a.b'}",
        "default-docker: {lookaside: /path}",
        "default-docker: {lookaside: 'https://user:secret@a.b'}",
        "default-docker: {lookaside: 'https://a.b?x=1'}",
        "default-docker: {lookaside: 'file://host/path'}",
        "default-docker: {lookaside: 'http:///path'}",
        "default-docker: {lookaside-staging: 'x'}",
        "default-docker: {use-sigstore-attachments: 'yes'}",
        "!!python/object/apply:os.system ['true']",
    ],
)
def test_malformed_files_are_named(tmp_path, content):
    with pytest.raises(Invalid, match=r"a\.yaml") as told:
        places(tmp_path, a=content)
    assert "secret" not in str(told.value)


def test_a_scope_stands_in_one_file(tmp_path):
    with pytest.raises(Invalid, match="twice"):
        places(tmp_path, a={"docker": {"a.b": {}}}, b={"docker": {"A.b": {}}})
    with pytest.raises(Invalid, match="twice"):
        places(tmp_path, a={"default-docker": {}}, b={"default-docker": {}})


@pytest.mark.parametrize(
    "content",
    [
        "default-docker: {lookaside: 'file:///a'}\ndefault-docker: {lookaside: 'file:///b'}",
        "docker: {a.b: {}, 'a.b': {}}",
        "docker: {a.b: {lookaside: 'file:///a', lookaside: 'file:///b'}}",
        "other: [{x: 1, x: 2}]",
        "&a x: {? {y: 1, y: 2} : z}",
    ],
)
def test_no_key_is_twice(tmp_path, content):
    with pytest.raises(Invalid, match="twice"):
        places(tmp_path, a=content)


def test_a_table_may_be_named_and_used_again(tmp_path):
    found = places(
        tmp_path, a="x: &a {lookaside: 'file:///a'}\ndefault-docker: *a\ndocker: {b.c: {<<: *a}, c.d: *a}\ny: &y [*y]"
    )
    assert found.lookaside(Reference.parse("b.c/x")) == "file:///a"


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(tmp_path_factory, content):
    directory = tmp_path_factory.mktemp("d")
    (directory / "a.yaml").write_text(content, "utf-8", "surrogatepass")
    try:
        SignaturePlaces.load(directory)
    except Invalid:
        return


def test_the_directory_of_a_user_wins(tmp_path):
    assert find_directory({"HOME": str(tmp_path)}) == SYSTEM_DIRECTORY
    assert find_directory({}) == SYSTEM_DIRECTORY
    own = tmp_path / ".config/containers/registries.d"
    own.mkdir(parents=True)
    assert find_directory({"HOME": str(tmp_path)}) == own


def test_signatures_are_written_to_the_staging_place_or_where_they_are_read(tmp_path):
    found = places(
        tmp_path,
        a={
            "default-docker": {"lookaside": "https://a.example/s"},
            "docker": {"b.example": {"lookaside": "https://b.example/s", "lookaside-staging": "file:///srv/s"}},
        },
    )
    assert found.staging(Reference.parse("b.example/x:v1")) == "file:///srv/s"
    assert found.staging(Reference.parse("c.example/x:v1")) == "https://a.example/s"


def test_a_scope_that_says_where_to_read_is_written_to_though_a_wider_one_has_staging(tmp_path):
    found = places(
        tmp_path,
        a={
            "default-docker": {"lookaside": "https://a.example/s", "lookaside-staging": "file:///srv/default"},
            "docker": {"b.example": {"lookaside": "file:///srv/b"}, "b.example/on": {"use-sigstore-attachments": True}},
        },
    )
    assert found.staging(Reference.parse("b.example/x:v1")) == "file:///srv/b"
    assert found.staging(Reference.parse("b.example/on/x:v1")) == "file:///srv/b"
    assert found.staging(Reference.parse("c.example/x:v1")) == "file:///srv/default"


def test_a_wildcard_is_for_all_ports(tmp_path):
    found = places(
        tmp_path, a={"docker": {"*.b.example": {"lookaside": "file:///w"}, "*.b.example:5000": {"lookaside": "file:///p"}}}
    )
    assert found.lookaside(Reference.parse("r.b.example:5000/x:v1")) == "file:///w"


def test_who_is_not_root_has_a_lookaside_of_its_own() -> None:
    assert default_lookaside({"HOME": "/root"}, 0) == "file:///var/lib/containers/sigstore"
    assert default_lookaside({"HOME": "/home/a b"}, 1000) == "file:///home/a%20b/.local/share/containers/sigstore"
    assert default_lookaside({}, 1000) == "file:///var/lib/containers/sigstore"
