"""network.conflist: which network is used, and what is said of bad files."""

import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.network.conflist import LIMIT_BYTES, find_plugin, load, parse

BRIDGE = {"type": "bridge", "ipam": {"type": "host-local"}}


def network(name: str = "net", version: str = "1.0.0", **more: object) -> dict[str, object]:
    return {"cniVersion": version, "name": name, "plugins": [BRIDGE], **more}


@pytest.fixture
def plugin_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in ("bridge", "host-local", "portmap"):
        (directory / name).write_text("#!/bin/sh\n")
        (directory / name).chmod(0o755)
    return directory


@pytest.fixture
def conf_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "net.d"
    directory.mkdir()
    return directory


def put(conf_dir: Path, file: str, document: object) -> None:
    (conf_dir / file).write_text(json.dumps(document))


def test_first_file_by_name_is_used(conf_dir: Path, plugin_dir: Path) -> None:
    put(conf_dir, "20-b.conflist", network("second"))
    put(conf_dir, "10-a.conflist", network("first"))
    chosen = load(conf_dir, [plugin_dir]).network
    assert chosen is not None
    assert chosen.name == "first"


def test_the_named_network_is_used(conf_dir: Path, plugin_dir: Path) -> None:
    put(conf_dir, "10-a.conflist", network("first"))
    put(conf_dir, "20-b.conflist", network("second"))
    chosen = load(conf_dir, [plugin_dir], default_network="second").network
    assert chosen is not None
    assert chosen.name == "second"


def test_a_missing_named_network_is_said_with_those_there(conf_dir: Path, plugin_dir: Path) -> None:
    put(conf_dir, "10-a.conflist", network("first"))
    loaded = load(conf_dir, [plugin_dir], default_network="other")
    assert loaded.network is None
    assert "'other'" in loaded.problem
    assert "first" in loaded.problem


def test_a_bad_file_is_skipped_and_named(conf_dir: Path, plugin_dir: Path) -> None:
    (conf_dir / "05-half.conflist").write_text('{"cniVersion": "1.0.0", "na')
    put(conf_dir, "10-a.conflist", network("good"))
    loaded = load(conf_dir, [plugin_dir])
    assert loaded.network is not None
    assert loaded.network.name == "good"
    assert "05-half.conflist" in loaded.skipped[0]


def test_only_bad_files_give_a_problem_with_cause(conf_dir: Path, plugin_dir: Path) -> None:
    put(conf_dir, "10-a.conflist", network(plugins=[]))
    loaded = load(conf_dir, [plugin_dir])
    assert loaded.network is None
    assert "10-a.conflist" in loaded.problem
    assert "plugins" in loaded.problem


@pytest.mark.parametrize("make", [True, False])
def test_no_file_asks_for_the_provider(tmp_path: Path, make: bool) -> None:
    directory = tmp_path / "none"
    if make:
        directory.mkdir()
    assert load(directory, []).problem == f"No CNI configuration file in {directory}/. Has your network provider started?"


@pytest.mark.parametrize("name", [".hidden.conflist", "x.conflist~", "x.conflist.swp", "README"])
def test_other_files_are_not_read(conf_dir: Path, plugin_dir: Path, name: str) -> None:
    put(conf_dir, name, network())
    assert load(conf_dir, [plugin_dir]).network is None


@pytest.mark.parametrize("suffix", ["conf", "json"])
def test_one_plugin_form_is_a_chain_of_one(conf_dir: Path, plugin_dir: Path, suffix: str) -> None:
    put(conf_dir, f"10.{suffix}", {"cniVersion": "0.3.1", "name": "one", **BRIDGE})
    chosen = load(conf_dir, [plugin_dir]).network
    assert chosen is not None
    assert [plugin.type for plugin in chosen.plugins] == ["bridge"]


def test_same_name_twice_keeps_the_first(conf_dir: Path, plugin_dir: Path) -> None:
    put(conf_dir, "10.conflist", network("x"))
    put(conf_dir, "20.conflist", network("x"))
    loaded = load(conf_dir, [plugin_dir])
    assert loaded.network is not None
    assert loaded.network.file.endswith("10.conflist")
    assert "20.conflist" in loaded.skipped[0]


def test_a_plugin_that_is_not_installed_is_not_ready(conf_dir: Path, plugin_dir: Path) -> None:
    put(conf_dir, "10.conflist", network(plugins=[{"type": "absent"}]))
    assert "absent" in load(conf_dir, [plugin_dir]).problem


def test_an_ipam_that_is_not_installed_is_not_ready(conf_dir: Path, plugin_dir: Path) -> None:
    put(conf_dir, "10.conflist", network(plugins=[{"type": "bridge", "ipam": {"type": "absent"}}]))
    assert "absent" in load(conf_dir, [plugin_dir]).problem


def test_a_fifo_does_not_hang(conf_dir: Path, plugin_dir: Path) -> None:
    os.mkfifo(conf_dir / "10.conflist")
    assert "regular file" in load(conf_dir, [plugin_dir]).problem


def test_a_link_loop_is_named(conf_dir: Path, plugin_dir: Path) -> None:
    (conf_dir / "10.conflist").symlink_to(conf_dir / "10.conflist")
    assert "10.conflist" in load(conf_dir, [plugin_dir]).problem


def test_a_file_over_the_cap_is_named(conf_dir: Path, plugin_dir: Path) -> None:
    (conf_dir / "10.conflist").write_bytes(b" " * (LIMIT_BYTES + 1))
    assert str(LIMIT_BYTES) in load(conf_dir, [plugin_dir]).problem


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [
        ({"cniVersion": "0.3.1"}, "0.3.1"),
        ({"cniVersion": "1.1.0"}, "1.1.0"),
        ({"cniVersion": "0.4.0", "cniVersions": ["0.4.0", "1.0.0", "9.0.0"]}, "1.0.0"),
        ({"cniVersion": "2.0.0", "cniVersions": ["1.1.0"]}, "1.1.0"),
    ],
)
def test_highest_known_version_is_spoken(versions: dict[str, object], chosen: str) -> None:
    assert parse(json.dumps({**network(), **versions}).encode()).version == chosen


@pytest.mark.parametrize(
    ("field", "document"),
    [
        ("cniVersion", network(version="0.2.0")),
        ("cniVersion", network(version="")),
        ("cniVersions", network(cniVersions="1.0.0")),
        ("name", network(name="")),
        ("name", network(name="a/b")),
        ("name", network(name="../x")),
        ("name", network(name="x\n")),
        ("name", network(name="n" * 200)),
        ("plugins", network(plugins={})),
        ("plugins", network(plugins=None)),
        ("plugins", network(plugins=[BRIDGE] * 65)),
        ("plugins[0]", network(plugins=["bridge"])),
        ("plugins[0].type", network(plugins=[{}])),
        ("plugins[0].type", network(plugins=[{"type": 3}])),
        ("plugins[0].type", network(plugins=[{"type": "../../canary/x"}])),
        ("plugins[0].type", network(plugins=[{"type": "/bin/sh"}])),
        ("plugins[0].type", network(plugins=[{"type": "..".replace(" ", "")}])),
        ("plugins[0].type", network(plugins=[{"type": "bridge\n"}])),
        ("plugins[0].type", network(plugins=[{"type": "-x"}])),
        ("plugins[1].type", network(plugins=[BRIDGE, {"type": "a b"}])),
        ("plugins[0].ipam.type", network(plugins=[{"type": "bridge", "ipam": {"type": "../x"}}])),
        ("plugins[0].ipam.type", network(plugins=[{"type": "bridge", "ipam": "x"}])),
        ("plugins[0].capabilities", network(plugins=[{"type": "bridge", "capabilities": ["x"]}])),
        ("plugins[0].capabilities", network(plugins=[{"type": "bridge", "capabilities": {"x": "yes"}}])),
        ("disableCheck", network(disableCheck="perhaps")),
        ("disableGC", network(disableGC=[1])),
    ],
)
def test_a_wrong_field_is_named(field: str, document: object) -> None:
    with pytest.raises(Invalid) as caught:
        parse(json.dumps(document).encode())
    assert caught.value.field == field


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b"\0",
        b'{"name": NaN}',
        b'{"name": "a", "name": "b"}',
        b'{"x": "\\ud800"}',
        b'{"x": 99999999999999999999999999}',
        b"[" * 200_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_is_no_document_is_invalid(source: bytes) -> None:
    with pytest.raises(Invalid):
        parse(source)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_network_or_invalid(junk: bytes) -> None:
    with pytest.raises(Invalid):
        parse(junk)


WHOLE = json.dumps(network()).encode()


@given(st.integers(0, len(WHOLE) - 1))
def test_a_truncated_file_is_invalid(length: int) -> None:
    with pytest.raises(Invalid):
        parse(WHOLE[:length])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["cniVersion", "cniVersions", "name", "plugins", "disableCheck", "disableGC"]), JSON)
def test_any_value_in_any_field_is_taken_or_invalid(field: str, value: object) -> None:
    with contextlib.suppress(Invalid):
        parse(json.dumps({**network(), field: value}).encode())


def test_own_keys_of_a_plugin_are_kept() -> None:
    conf = {"type": "bridge", "keyA": ["some", {"more": 1.5}], "mtu": 1400}
    assert parse(json.dumps(network(plugins=[conf])).encode()).plugins[0].conf == conf


def test_only_capabilities_set_true_count() -> None:
    conf = {"type": "portmap", "capabilities": {"portMappings": True, "bandwidth": False}}
    assert parse(json.dumps(network(plugins=[conf])).encode()).plugins[0].capabilities == {"portMappings"}


def test_a_plugin_is_found_in_the_second_directory(tmp_path: Path, plugin_dir: Path) -> None:
    assert find_plugin("bridge", [tmp_path / "absent", plugin_dir]) == plugin_dir / "bridge"


def test_a_link_within_the_directory_is_fine(plugin_dir: Path) -> None:
    (plugin_dir / "alias").symlink_to("bridge")
    assert find_plugin("alias", [plugin_dir]) == plugin_dir / "alias"


def test_a_link_out_of_the_directory_is_refused(plugin_dir: Path) -> None:
    (plugin_dir / "out").symlink_to("/bin/sh")
    with pytest.raises(Invalid):
        find_plugin("out", [plugin_dir])


@pytest.mark.parametrize("kind", ["../bin/bridge", "/bin/sh", "..", ".", "", "bridge\n", "a/b"])
def test_a_path_is_no_plugin(plugin_dir: Path, kind: str) -> None:
    with pytest.raises(Invalid):
        find_plugin(kind, [plugin_dir])


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_plugin_must_be_executable(plugin_dir: Path, mode: int) -> None:
    (plugin_dir / "bridge").chmod(mode)
    with pytest.raises(Invalid):
        find_plugin("bridge", [plugin_dir])


def test_a_directory_is_no_plugin(plugin_dir: Path) -> None:
    (plugin_dir / "dir").mkdir()
    with pytest.raises(Invalid):
        find_plugin("dir", [plugin_dir])


def test_a_file_whose_name_is_not_utf_8_is_named_in_text_that_is(conf_dir: Path, plugin_dir: Path) -> None:
    (conf_dir / os.fsdecode(b"10-\xff.conf")).write_text("{")
    loaded = load(conf_dir, [plugin_dir])
    assert "10-\\udcff.conf" in loaded.problem.encode().decode()
