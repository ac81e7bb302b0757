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
    assert [endpoint.is_insecure for endpoint in hosts.endpoints(Reference.parse("a.b:5000/other"))] == [False]


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
        '[registries.search]\nregistries = ["a.b"]',
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
