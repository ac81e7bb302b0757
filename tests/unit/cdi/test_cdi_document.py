"""A CDI spec: what is read of it, and what is refused."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from criollo.cdi.document import LIMIT_BYTES, VERSIONS, Spec, is_qualified, read_spec
from criollo.errors import Invalid

NODE = {"path": "/dev/v0", "hostPath": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7, "gid": 8}
FULL: dict[str, Any] = {
    "cdiVersion": "1.1.0",
    "kind": "vendor.com/device.class",
    "annotations": {"a": "b"},
    "devices": [
        {
            "name": "0",
            "annotations": {"c": "d"},
            "containerEdits": {
                "env": ["A=1"],
                "deviceNodes": [{**NODE, "permissions": "rw"}],
                "netDevices": [{"hostInterfaceName": "eth7", "name": "net0"}],
                "mounts": [{"hostPath": "/lib", "containerPath": "/opt/lib", "options": ["ro"], "type": "bind"}],
                "hooks": [{"hookName": "createContainer", "path": "/bin/h", "args": ["h"], "env": ["X=y"], "timeout": 5}],
                "intelRdt": {"closID": "g", "l3CacheSchema": "L3:0=f", "schemata": ["MB:0=50"], "enableMonitoring": True},
                "additionalGids": [44],
            },
        }
    ],
    "containerEdits": {"env": ["B=2"]},
}


def spec(**changes: Any) -> bytes:
    return json.dumps({**FULL, **changes}).encode()


def with_edits(**edits: Any) -> bytes:
    return spec(devices=[{"name": "d", "containerEdits": edits}])


def test_every_edit_is_read() -> None:
    found = read_spec(spec(), "f")
    edits = found.devices[0].container_edits
    assert (edits.device_nodes[0].file_mode, edits.device_nodes[0].permissions) == (0o640, "rw")
    assert edits.intel_rdt is not None
    assert (edits.intel_rdt.clos_id, edits.intel_rdt.schemata) == ("g", ("MB:0=50",))
    assert (edits.net_devices[0].name, edits.additional_gids, edits.hooks[0].timeout) == ("net0", (44,), 5)
    assert found.container_edits.env == ("B=2",)


def test_yaml_says_the_same_as_json() -> None:
    assert read_spec(yaml.safe_dump(FULL).encode(), "f.yaml") == read_spec(spec(), "f.yaml")


@pytest.mark.parametrize("version", [*VERSIONS, "v1.0.0"])
def test_all_versions_are_read(version: str) -> None:
    assert isinstance(read_spec(spec(cdiVersion=version), "f"), Spec)


def test_null_is_absent() -> None:
    assert read_spec(spec(annotations=None, containerEdits=None), "f").container_edits.env == ()


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (spec(cdiVersion="0.2.0"), "cdiVersion"),
        (spec(cdiVersion="9.0.0"), "cdiVersion"),
        (spec(kind="novendor"), "kind"),
        (spec(kind="a/b/c"), "kind"),
        (spec(devices=[]), "devices"),
        (spec(devices=[{"name": "x", "containerEdits": {}}]), "containerEdits"),
        (spec(devices=[FULL["devices"][0]] * 2), r"devices\[1\].name"),
        (spec(devices=[{**FULL["devices"][0], "name": "../x"}]), r"devices\[0\].name"),
        (spec(more=1), "more"),
        (with_edits(env=["=x"]), "env"),
        (with_edits(env=["A=\0"]), "env"),
        (with_edits(deviceNodes=[{"path": "dev/x"}]), "path"),
        (with_edits(deviceNodes=[{**NODE, "hostPath": "/dev/../etc/x"}]), "hostPath"),
        (with_edits(deviceNodes=[{**NODE, "type": "x"}]), "type"),
        (with_edits(deviceNodes=[{**NODE, "permissions": "rx"}]), "permissions"),
        (with_edits(deviceNodes=[{**NODE, "uid": -1}]), "uid"),
        (with_edits(deviceNodes=[{**NODE, "fileMode": 0o10000}]), "fileMode"),
        (with_edits(mounts=[{"hostPath": "", "containerPath": "/x"}]), "hostPath"),
        (with_edits(mounts=[{"hostPath": "/x", "containerPath": "/"}]), "containerPath"),
        (with_edits(hooks=[{"hookName": "never", "path": "/x"}]), "hookName"),
        (with_edits(hooks=[{"hookName": "poststop", "path": "x"}]), "path"),
        (with_edits(hooks=[{"hookName": "poststop", "path": "/x", "timeout": 0}]), "timeout"),
        (with_edits(netDevices=[{"hostInterfaceName": "a/b", "name": "x"}]), "netDevices"),
        (with_edits(netDevices=[{"hostInterfaceName": n, "name": "x"} for n in "ab"]), "netDevices"),
        (with_edits(intelRdt={"closID": "../x"}), "closID"),
        (with_edits(additionalGids=[-1]), "additionalGids"),
        (b"a: &a [x]\nb: *a\n", "alias"),
        (b"---\n---\n", "0 documents"),
        (b"{", "no JSON"),
        (b'{"kind":"a/b","kind":"a/c"}', "twice"),
        (b" " * (LIMIT_BYTES + 1), "at most"),
        (b"[" * 5000, "nesting"),
    ],
)
def test_what_is_no_spec_is_refused_by_its_field(raw: bytes, field: str) -> None:
    with pytest.raises(Invalid, match=field):
        read_spec(raw, "f")


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(Invalid, match="alias"):
        read_spec("\n".join(lines).encode(), "f.yaml")


@given(st.binary(max_size=200) | st.text(st.sampled_from('{}[]":,-&*!|\n akindevcs0'), max_size=80).map(str.encode))
def test_any_bytes_are_a_spec_or_refused(raw: bytes) -> None:
    with pytest.raises(Invalid):
        read_spec(raw, "f")


@given(
    st.dictionaries(
        st.sampled_from(list(FULL)), st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
    )
)
def test_a_field_of_another_type_is_refused_or_harmless(changes: dict[str, Any]) -> None:
    try:
        found = read_spec(spec(**changes), "f")
    except Invalid:
        return
    assert found.devices


@pytest.mark.parametrize(
    ("name", "answer"), [("a.b/c=0", True), ("a/b", False), ("a/b=", False), ("=x", False), ("a/b=c/../d", False)]
)
def test_a_qualified_name_has_three_parts(name: str, answer: bool) -> None:
    assert is_qualified(name) is answer
