"""registries.conf as checked values: modes, aliases, credential programs, files of version 1."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from criollo.errors import CriolloError, Invalid
from criollo.oci.reference import Reference
from criollo.registry.hosts import Hosts
from criollo.registry.registries_conf import AUTH_FILES, Mode, Rule, load

SEARCH = 'unqualified-search-registries = ["one.example", "two.example"]\n'


@pytest.fixture
def conf(tmp_path):
    def write(*texts):
        paths = []
        for at, text in enumerate(texts):
            paths.append(tmp_path / f"{at}.conf")
            paths[-1].write_text(text)
        return load(paths[0], paths[1:])

    return write


@pytest.fixture
def hosts(tmp_path):
    def write(text, aliases="", mode=None):
        (tmp_path / "registries.conf").write_text(text)
        (tmp_path / "aliases.conf").write_text(aliases)
        return Hosts.load(tmp_path / "registries.conf", aliases_file=tmp_path / "aliases.conf", mode=mode)

    return write


def refs(hosts, text):
    return [str(each.reference) for each in hosts.candidates(text)]


def test_later_files_win_key_by_key(conf):
    found = conf(
        'short-name-mode = "disabled"\ncredential-helpers = ["x"]\n[aliases]\na = "r.example/a"\nb = "r.example/b"',
        '[aliases]\nb = ""\nc = "r.example/c"',
        SEARCH + 'short-name-mode = "permissive"',
    )
    assert found.mode is Mode.PERMISSIVE
    assert found.credential_programs == ("x",)
    assert {name: alias.target for name, alias in found.aliases.items()} == {"a": "r.example/a", "b": "", "c": "r.example/c"}
    assert found.search == ("one.example", "two.example")


def test_without_keys_nothing_is_said(conf):
    found = conf("")
    assert (found.search, found.mode, found.credential_programs) == (None, None, None)


def test_a_drop_in_can_take_credential_programs_back(conf, tmp_path):
    programs = 'credential-helpers = ["x"]'
    assert conf(programs, f'credential-helpers = ["{AUTH_FILES}"]').credential_programs == (AUTH_FILES,)
    assert conf(programs, "credential-helpers = []").credential_programs == (AUTH_FILES,)
    assert conf(programs, "").credential_programs == ("x",)
    assert Hosts.load(tmp_path / "0.conf").credential_programs == ("x",)
    assert Hosts.load(None).credential_programs == (AUTH_FILES,)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('location = "r.example"\nbloked = true', r"0\.conf: \[\[registry\]\] r\.example: got 'bloked', expected blocked\?"),
        ('location = "r.example"\nmirror_by_digest_only = true', r"expected mirror-by-digest-only\?"),
        ('location = "r.example"\nBloked = true', r"got 'Bloked', expected blocked\?"),
        ('location = "r.example"\npull-from-mirror = "all"', "got 'pull-from-mirror'"),
        (
            'prefix = "r.example/a"\n[[registry.mirror]]\nlocation = "m.example"\npull-from-miror = "digest-only"',
            r"0\.conf: \[\[registry\.mirror\]\] m\.example of r\.example/a: got 'pull-from-miror', expected pull-from-mirror\?",
        ),
        ('location = "r.example"\n[[registry.mirror]]\nlocation = "m.example"\nblocked = true', "got 'blocked', expected"),
        ("bloked = true", r"\[\[registry\]\] number 1: got 'bloked'"),
    ],
)
def test_a_misspelt_key_of_a_table_is_refused_with_the_nearest(conf, text, told):
    with pytest.raises(Invalid, match=told):
        conf(f"[[registry]]\n{text}")


@pytest.mark.parametrize("key", ["qqqq", "unqualified-search", "file", "url"])
def test_a_key_like_no_other_is_told_and_changes_nothing(conf, caplog, key):
    (rule,) = conf(f'[[registry]]\nlocation = "r.example"\n{key} = "/x"\n').rules
    assert (rule.prefix, rule.blocked, rule.insecure) == ("r.example", False, False)
    assert rule.file.endswith("0.conf")
    assert key in caplog.text or "unknown key" in caplog.text


def test_keys_are_read_in_any_case(conf):
    found = conf(
        'Unqualified-Search-Registries = ["one.example"]\nShort-Name-Mode = "disabled"\n'
        '[[Registry]]\nLocation = "r.example"\nBLOCKED = true\n'
        '[[Registry.Mirror]]\nLOCATION = "m.example"\nPull-From-Mirror = "digest-only"\n[Aliases]\napp = "r.example/app"\n'
    )
    (rule,) = found.rules
    assert (rule.blocked, [each.pull_from_mirror for each in rule.mirror]) == (True, ["digest-only"])
    assert (found.search, found.mode, list(found.aliases)) == (("one.example",), Mode.DISABLED, ["app"])


@pytest.mark.parametrize(
    "text",
    [
        '[[registry]]\nlocation = "r.example"\nblocked = true\nBlocked = false',
        '[[registry]]\nlocation = "r.example"\n[[Registry]]\nlocation = "s.example"',
        '[[registry]]\nlocation = "r.example"\n[[registry.mirror]]\nlocation = "m.example"\nLocation = "n.example"',
    ],
)
def test_a_key_in_two_spellings_is_refused(conf, text):
    with pytest.raises(Invalid, match="twice"):
        conf(text)


KEYS = ("prefix", "location", "insecure", "blocked", "mirror-by-digest-only", "mirror")


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=80))
def test_no_other_key_of_a_table_has_an_effect(tmp_path_factory, key):
    assume(key.lower() not in KEYS)
    path = tmp_path_factory.getbasetemp() / "key.conf"
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')
    path.write_text(f'[[registry]]\nlocation = "r.example"\n"{quoted}" = true\n')
    try:
        (rule,) = load(path).rules
    except Invalid:
        return
    assert rule == Rule(prefix="r.example", location="r.example", file=str(path))


def test_of_two_tables_of_one_prefix_in_a_file_the_first_counts(conf):
    found = conf(
        '[[registry]]\nlocation = "r.example"\n[[registry.mirror]]\nlocation = "m.example"\n'
        '[[registry]]\nlocation = "r.example"'
    )
    assert [len(rule.mirror) for rule in found.rules] == [1]


@pytest.mark.parametrize("key", ["insecure", "blocked"])
@pytest.mark.parametrize("prefix", ["r.example/a", "s.example"])
def test_tables_of_one_file_that_disagree_about_a_place_are_refused(conf, key, prefix):
    with pytest.raises(Invalid, match=rf"{key}: got 'false, and true for r\.example', expected the same for all .* r\.example"):
        conf(f'[[registry]]\nlocation = "r.example"\n{key} = true\n[[registry]]\nprefix = "{prefix}"\nlocation = "r.example"')
    assert conf(f'[[registry]]\nlocation = "r.example"\n{key} = true', '[[registry]]\nlocation = "r.example"').rules


@pytest.mark.parametrize("prefix", ["*.example.com/team", "*.example.com:5000", "*", "r.*.com", "*.example.com@x"])
def test_a_wildcard_is_for_hosts_alone(conf, prefix):
    with pytest.raises(Invalid, match=r"registry\.prefix"):
        conf(f'[[registry]]\nprefix = "{prefix}"\nlocation = "r.example"')


def test_a_slash_after_a_search_host_is_no_part_of_it(conf):
    assert conf('unqualified-search-registries = ["one.example/"]').search == ("one.example",)


def test_a_drop_in_may_go_away_after_it_was_listed(tmp_path):
    (tmp_path / "c").write_text('short-name-mode = "disabled"')
    assert load(tmp_path / "c", [tmp_path / "gone.conf"]).mode is Mode.DISABLED
    with pytest.raises(CriolloError, match="absent"):
        load(tmp_path / "absent")


@pytest.mark.parametrize(
    "text",
    [
        'short-name-mode = "strict"',
        "short-name-mode = 7",
        'credential-helpers = "x"',
        'credential-helpers = ["../x"]',
        'credential-helpers = ["x y"]',
        "aliases = 7",
        "[aliases]\na = 7",
        '[aliases]\n"r.example/a" = "r.example/b"',
        '[aliases]\n"a:1" = "r.example/b"',
        '[aliases]\na = "b"',
        '[aliases]\na = "r.example/b:1"',
        f'[aliases]\na = "r.example/b@sha256:{"a" * 64}"',
        '[aliases]\nA = "r.example/b"',
    ],
)
def test_a_malformed_key_is_refused_with_its_file(conf, text):
    with pytest.raises(Invalid, match=r"0\.conf"):
        conf(text)


FORMAT_1 = (
    '[registries.search]\nregistries = ["a.b"]\n'
    '[registries.insecure]\nregistries = ["c.d", "e.f/"]\n'
    '[registries.block]\nregistries = ["e.f"]\n'
)


def test_a_file_of_format_1_is_read_as_format_2(conf):
    found = conf(FORMAT_1, 'short-name-mode = "disabled"')
    assert {(rule.prefix, rule.blocked, rule.insecure) for rule in found.rules} == {("c.d", False, True), ("e.f", True, True)}
    assert (found.search, found.mode) == (("a.b",), Mode.DISABLED)


@pytest.mark.parametrize("texts", [("", FORMAT_1), ('short-name-mode = "disabled"\n' + FORMAT_1,)])
def test_a_drop_in_of_format_1_and_a_mixed_file_are_refused_with_what_to_write(conf, texts):
    with pytest.raises(Invalid) as caught:
        conf(*texts)
    for part in (
        'unqualified-search-registries = ["a.b"]',
        '[[registry]] location = "c.d" insecure = true',
        '[[registry]] location = "e.f" blocked = true insecure = true',
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "registries = 7",
        '[registries.search]\nregistries = "x"',
        "[registries.block]\nregistries = [7]",
        "registries.search = 1",
    ],
)
def test_a_malformed_file_of_format_1_is_refused(conf, text):
    with pytest.raises(Invalid, match=r"0\.conf: registries"):
        conf(text)


@pytest.mark.parametrize("text", ["[registries]", "[registries.search]\nregistries = []\n"])
def test_lists_of_format_1_that_say_nothing_do_not_count(conf, text):
    assert conf('short-name-mode = "disabled"\n' + text, text).search is None


def test_an_alias_keeps_tag_and_digest(hosts):
    found = hosts('[aliases]\n"app" = "r.example/team/app"\n"team/tool" = "docker.io/tool"')
    digest = "sha256:" + "a" * 64
    assert refs(found, "app") == ["r.example/team/app:latest"]
    assert refs(found, "app:1") == ["r.example/team/app:1"]
    assert refs(found, f"app:1@{digest}") == [f"r.example/team/app:1@{digest}"]
    assert refs(found, "team/tool:2") == ["docker.io/library/tool:2"]
    assert refs(found, "other.example/app") == ["other.example/app:latest"]


def test_recorded_aliases_win_over_configured_ones(hosts):
    found = hosts('[aliases]\na = "r.example/a"\nb = "r.example/b"', '[aliases]\na = "s.example/a"')
    assert refs(found, "a") == ["s.example/a:latest"]
    assert refs(found, "b") == ["r.example/b:latest"]


def test_an_alias_taken_back_leaves_the_search_list(hosts):
    assert refs(hosts('unqualified-search-registries = ["one.example"]\n[aliases]\na = ""'), "a") == ["one.example/a:latest"]


def test_the_file_of_recorded_aliases_may_be_missing(tmp_path):
    assert load(None, aliases_file=tmp_path / "absent").aliases == {}


def test_enforcing_refuses_a_name_that_means_several(hosts):
    with pytest.raises(Invalid, match=r"one\.example/app:latest or two\.example/app:latest") as caught:
        refs(hosts(SEARCH), "app")
    assert "short name mode is enforcing, but image name app returns ambiguous list" in str(caught.value)
    assert refs(hosts('unqualified-search-registries = ["one.example"]'), "app") == ["one.example/app:latest"]


@pytest.mark.parametrize("mode", ["permissive", "disabled"])
def test_other_modes_try_each(hosts, mode):
    found = hosts(SEARCH + f'short-name-mode = "{mode}"')
    assert refs(found, "app:1") == ["one.example/app:1", "two.example/app:1"]


def test_a_given_mode_wins_over_the_files(hosts):
    with pytest.raises(Invalid):
        refs(hosts(SEARCH + 'short-name-mode = "disabled"', mode=Mode.ENFORCING), "app")
    assert len(refs(hosts(SEARCH + 'short-name-mode = "enforcing"', mode=Mode.DISABLED), "app")) == 2


def test_a_missing_list_means_docker_hub_and_an_empty_one_nothing(hosts):
    assert refs(hosts(""), "app") == ["docker.io/library/app:latest"]
    with pytest.raises(Invalid, match=r"search list of .* is empty"):
        refs(hosts("unqualified-search-registries = []"), "app")


@given(st.text(alphabet="ab./:@-", min_size=1, max_size=12), st.text(alphabet="ab./:@-", max_size=12))
def test_any_alias_is_refused_or_leads_to_a_full_name(tmp_path_factory, name, target):
    path = tmp_path_factory.getbasetemp() / "alias.conf"
    path.write_text(f'[aliases]\n"{name}" = "{target}"\n')
    try:
        hosts = Hosts.load(path)
    except Invalid:
        return
    (candidate,) = hosts.candidates(name)
    assert not target or candidate.reference.name.endswith(Reference.parse(target).path)


@given(st.text(max_size=60))
def test_any_text_is_a_file_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any-text.conf"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load(path)
    except Invalid:
        return
