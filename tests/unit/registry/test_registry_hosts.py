import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Forbidden, Invalid
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.registry.hosts import Hosts

SHA = str(Digest.of(b"x"))


@pytest.fixture
def load(tmp_path):
    def write(text, **dropped):
        conf = tmp_path / "registries.conf"
        conf.write_text(text)
        directory = tmp_path / "registries.conf.d"
        directory.mkdir(exist_ok=True)
        for name, content in dropped.items():
            (directory / f"{name}.conf").write_text(content)
        return Hosts.load(conf, [directory])

    return write


def names(hosts, text):
    return [str(endpoint) for endpoint in hosts.endpoints(Reference.parse(text))]


def test_without_configuration_each_name_is_served_by_its_domain():
    (endpoint,) = Hosts().endpoints(Reference.parse("busybox"))
    assert (endpoint.host, endpoint.repository, endpoint.is_insecure) == ("docker.io", "library/busybox", False)
    assert endpoint.api_host == "registry-1.docker.io"
    assert Hosts().default_domain == "docker.io"


def test_the_longest_prefix_decides(load):
    hosts = load("""
        [[registry]]
        location = "a.b"
        insecure = true
        [[registry]]
        prefix = "a.b/team"
        location = "c.d/x"
    """)
    assert names(hosts, "a.b/team/app") == ["c.d/x/app"]
    assert names(hosts, "a.b/teams/app") == ["a.b/teams/app"]
    assert [endpoint.is_insecure for endpoint in hosts.endpoints(Reference.parse("a.b/other"))] == [True]
    assert [endpoint.is_insecure for endpoint in hosts.endpoints(Reference.parse("a.bc/other"))] == [False]


@pytest.mark.parametrize(
    ("name", "moved"),
    [
        ("x.example.com/app", "in.example.net/m/app"),
        ("x.y.example.com/app", "in.example.net/m/app"),
        ("example.com/app", "example.com/app"),
        ("badexample.com/app", "badexample.com/app"),
    ],
)
def test_a_wildcard_matches_subdomains_only(load, name, moved):
    hosts = load('[[registry]]\nprefix = "*.example.com"\nlocation = "in.example.net/m"')
    assert names(hosts, name) == [moved]


@pytest.mark.parametrize(
    ("prefix", "location", "moved"),
    [
        ("a.b", "a.b", "a.b:5000/app"),
        ("a.b", "c.d", "c.d:5000/app"),
        ("*.b", "", "a.b:5000/app"),
        ("*.b", "c.d", "c.d:5000/app"),
        ("a.b:5000", "c.d", "c.d/app"),
    ],
)
def test_a_prefix_without_a_port_is_for_every_port_of_its_host(load, prefix, location, moved):
    text = f'[[registry]]\nprefix = "{prefix}"\nlocation = "{location}"\ninsecure = true'
    (endpoint,) = load(text).endpoints(Reference.parse("a.b:5000/app"))
    assert (str(endpoint), endpoint.is_insecure) == (moved, True)
    with pytest.raises(Forbidden):
        load(text + "\nblocked = true").endpoints(Reference.parse("a.b:5000/app"))


@pytest.mark.parametrize("location", ["c.d/team", "c.d:80"])
def test_a_location_that_cannot_take_the_port_is_told(load, location):
    hosts = load(f'[[registry]]\nprefix = "a.b"\nlocation = "{location}"')
    assert names(hosts, "a.b/app") == [f"{location}/app"]
    with pytest.raises(Invalid, match="a location that names a repository"):
        hosts.endpoints(Reference.parse("a.b:5000/app"))


def test_of_prefixes_of_one_length_the_wildcard_counts(load):
    hosts = load('[[registry]]\nprefix = "r.b.c"\nlocation = "one.d"\n[[registry]]\nprefix = "*.b.c"\nlocation = "two.d"')
    assert names(hosts, "r.b.c/app") == ["two.d/app"]


BLOCKED_SOURCE = """
    [[registry]]
    location = "a.b"
    blocked = true
    [[registry.mirror]]
    location = "m0.local"
    [[registry.mirror]]
    location = "m1.local"
    pull-from-mirror = "digest-only"
"""


def test_mirrors_of_a_blocked_registry_are_asked_and_it_is_not(load):
    hosts = load(BLOCKED_SOURCE)
    assert names(hosts, "a.b/app") == ["m0.local/app"]
    assert names(hosts, f"a.b/app@{SHA}") == ["m0.local/app", "m1.local/app"]
    endpoints = hosts.endpoints(Reference.parse(f"a.b/app@{SHA}"))
    assert [endpoint.is_mirror for endpoint in endpoints] == [True, False]
    assert "a.b is blocked" in endpoints[-1].because


def test_a_blocked_registry_without_a_mirror_for_the_reference_is_refused(load):
    hosts = load(BLOCKED_SOURCE.replace('"m0.local"', '"m0.local"\npull-from-mirror = "digest-only"'))
    with pytest.raises(Forbidden, match=r"blocks a\.b"):
        hosts.endpoints(Reference.parse("a.b/app"))


def test_what_is_blocked_is_neither_mirror_nor_location_of_another(load):
    text = """
        [[registry]]
        prefix = "a.b"
        location = "c.d/x"
        [[registry.mirror]]
        location = "m.local/bad"
        [[registry.mirror]]
        location = "m.local/good"
        [[registry]]
        location = "m.local/bad"
        blocked = true
    """
    assert names(load(text), "a.b/app") == ["m.local/good/app", "c.d/x/app"]
    with_location = text + '[[registry]]\nlocation = "c.d"\nblocked = true\n'
    assert names(load(with_location), "a.b/app") == ["m.local/good/app"]
    with pytest.raises(Forbidden, match=r"blocks c\.d"):
        load(with_location.replace("m.local/good", "m.local/bad/good")).endpoints(Reference.parse("a.b/app"))


def test_pushes_are_not_moved(load):
    text = '[[registry]]\nprefix = "a.b"\nlocation = "c.d/x"\ninsecure = true\n[[registry.mirror]]\nlocation = "m.local"'
    home = load(text).home(Reference.parse("a.b/app"))
    assert (str(home), home.is_insecure, home.is_mirror) == ("a.b/app", True, False)
    assert str(load("").home(Reference.parse("a.b/app"))) == "a.b/app"
    with pytest.raises(Forbidden, match=r"blocks a\.b"):
        load(text.replace("insecure", "blocked")).home(Reference.parse("a.b/app"))


def test_a_wildcard_without_location_changes_no_name(load):
    hosts = load('[[registry]]\nprefix = "*.example.com"\ninsecure = true')
    (endpoint,) = hosts.endpoints(Reference.parse("r.example.com/app"))
    assert (str(endpoint), endpoint.is_insecure) == ("r.example.com/app", True)
    assert hosts.is_insecure("r.example.com")
    assert not hosts.is_insecure("example.com")


def test_mirrors_come_first_and_keep_their_own_flags(load):
    hosts = load("""
        [[registry]]
        prefix = "a.b/foo"
        location = "in.net/bar"
        [[registry.mirror]]
        location = "m0.local/mirror-for-foo"
        [[registry.mirror]]
        location = "m1.local:5000"
        insecure = true
    """)
    endpoints = hosts.endpoints(Reference.parse("a.b/foo/image"))
    assert [str(endpoint) for endpoint in endpoints] == [
        "m0.local/mirror-for-foo/image",
        "m1.local:5000/image",
        "in.net/bar/image",
    ]
    assert [(endpoint.is_mirror, endpoint.is_insecure) for endpoint in endpoints] == [
        (True, False),
        (True, True),
        (False, False),
    ]


@pytest.mark.parametrize(
    ("table", "mirror", "by_tag", "by_digest"),
    [
        ("", "", 2, 2),
        ("mirror-by-digest-only = true", "", 1, 2),
        ("", 'pull-from-mirror = "digest-only"', 1, 2),
        ("", 'pull-from-mirror = "tag-only"', 2, 1),
        ("", 'pull-from-mirror = "all"', 2, 2),
    ],
)
def test_mirrors_may_be_for_tags_or_digests(load, table, mirror, by_tag, by_digest):
    hosts = load(f'[[registry]]\nlocation = "a.b"\n{table}\n[[registry.mirror]]\nlocation = "m.local"\n{mirror}')
    assert len(names(hosts, "a.b/x:1")) == by_tag
    assert len(names(hosts, f"a.b/x@{SHA}")) == by_digest


def test_docker_hub_is_mirrored_under_its_full_names(load):
    hosts = load('[[registry]]\nprefix = "docker.io"\nlocation = "hub.local:5000"')
    assert names(hosts, "busybox") == ["hub.local:5000/library/busybox"]


def test_blocked_names_are_denied(load):
    hosts = load('[[registry]]\nprefix = "a.b/bad"\nblocked = true')
    with pytest.raises(Forbidden, match=r"a\.b/bad"):
        hosts.endpoints(Reference.parse("a.b/bad/app"))
    assert names(hosts, "a.b/good") == ["a.b/good"]


def test_a_prefix_may_name_one_tag(load):
    hosts = load('[[registry]]\nprefix = "a.b/app:old"\nlocation = "c.d/app"\ninsecure = true')
    assert names(hosts, "a.b/app:old") == ["c.d/app"]
    assert names(hosts, "a.b/app:new") == ["a.b/app"]


def test_drop_ins_replace_tables_of_the_same_prefix(load):
    hosts = load(
        'unqualified-search-registries = ["one.example"]\n[[registry]]\nlocation = "a.b"\ninsecure = true',
        b='[[registry]]\nlocation = "a.b"\n[[registry]]\nlocation = "c.d"\ninsecure = true',
        c='unqualified-search-registries = ["two.example", "three.example"]',
    )
    assert not hosts.is_insecure("a.b")
    assert hosts.is_insecure("c.d")
    assert hosts.default_domain == "two.example"


def test_only_conf_files_of_the_directory_count(load, tmp_path):
    load("")
    (tmp_path / "registries.conf.d" / "x.conf.bak").write_text("not = toml = at all")
    (tmp_path / "registries.conf.d" / "y.conf").mkdir()
    load("")


def test_keys_of_later_work_are_accepted(load):
    load('short-name-mode = "enforcing"\ncredential-helpers = ["x"]\n[aliases]\n"a" = "b.c/a"\n')


@pytest.mark.parametrize(
    "text",
    [
        "x = ",
        "[[registry]]\n",
        '[[registry]]\nlocation = "https://a.b"',
        '[[registry]]\nlocation = "a b"',
        '[[registry]]\nlocation = "*.a.b"\nprefix = "a.b"',
        "[[registry]]\nlocation = 7",
        '[[registry]]\nlocation = "a.b"\ninsecure = "yes"',
        '[[registry]]\nlocation = "a.b"\n[[registry.mirror]]\ninsecure = true',
        '[[registry]]\nlocation = "a.b"\nmirror-by-digest-only = true\n'
        '[[registry.mirror]]\nlocation = "m"\npull-from-mirror = "all"',
        '[[registry]]\nlocation = "a.b"\n[[registry.mirror]]\nlocation = "m"\npull-from-mirror = "never"',
        'unqualified-search-registries = "a.b"',
        'unqualified-search-registries = ["a.b/c"]',
        '[registry]\nlocation = "a.b"',
        "a = " + "[" * 5000,
    ],
)
def test_a_malformed_file_is_refused_with_its_name(load, text):
    with pytest.raises(Invalid, match=r"registries\.conf"):
        load(text)


def test_a_named_file_must_exist(tmp_path):
    with pytest.raises(Exception, match="absent") as caught:
        Hosts.load(tmp_path / "absent.conf")
    assert type(caught.value).__module__ == "criollo.errors"


@given(st.text(alphabet="ab.*:/0-@", max_size=12), st.text(alphabet="ab.:/0-", max_size=12))
def test_any_rule_maps_names_or_is_refused(tmp_path_factory, prefix, location):
    path = tmp_path_factory.getbasetemp() / "any.conf"
    path.write_text(f'[[registry]]\nprefix = "{prefix}"\nlocation = "{location}"\n')
    try:
        endpoints = Hosts.load(path).endpoints(Reference.parse("a.b/a/b:0"))
    except Invalid:
        return
    assert len(endpoints) == 1
