"""Which specs count, what a device brings, and how it is told that there is none."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from criollo.cdi.registry import HOOK_ENV, Registry, requested
from criollo.errors import Invalid, NotFound
from criollo.model.edits import Edits
from criollo.telemetry import texts


def write(
    directory: Path, name: str, *devices: str, kind: str = "v.com/d", edits: dict[str, Any] | None = None, **more: Any
) -> None:
    """A spec whose devices bring a variable of their own that names the file."""
    directory.mkdir(exist_ok=True)
    described = [{"name": each, "containerEdits": edits or {"env": [f"{each.upper()}={name}"]}} for each in devices]
    document = {"cdiVersion": "0.6.0", "kind": kind, "devices": described, **more}
    (directory / name).write_text(json.dumps(document))


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "etc", tmp_path / "run"


def registry(places: tuple[Path, Path]) -> Registry:
    return Registry([str(each) for each in places])


def test_edits_of_a_spec_come_once_and_before_its_devices(places: tuple[Path, Path]) -> None:
    write(places[0], "a.json", "x", "y", containerEdits={"env": ["ALL=1"]})
    found = registry(places).resolve(["v.com/d=y", "v.com/d=x", "v.com/d=y"])
    assert found.env == ("ALL=1", "Y=a.json", "X=a.json")


def test_the_later_directory_wins(places: tuple[Path, Path]) -> None:
    write(places[0], "a.json", "x", "y")
    write(places[1], "b.json", "x")
    assert registry(places).resolve(["v.com/d=x", "v.com/d=y"]).env == ("X=b.json", "Y=a.json")


def test_two_specs_of_one_directory_make_their_device_unusable(places: tuple[Path, Path]) -> None:
    for name in ("a.json", "b.json", "c.json"):
        write(places[0], name, "x", name[0])
    known = registry(places)
    with pytest.raises(Invalid, match=r"v\.com/d=x.*a\.json.*b\.json"):
        known.resolve(["v.com/d=x"])
    assert known.resolve(["v.com/d=c"]).env == ("C=c.json",)
    write(places[1], "later.json", "x")
    assert known.resolve(["v.com/d=x"]).env == ("X=later.json",)


def test_a_device_that_is_nowhere_is_named_with_the_specs_that_are_broken(places: tuple[Path, Path]) -> None:
    write(places[0], "a.json", "x")
    (places[0] / "broken.yaml").write_text("kind: [")
    known = registry(places)
    with pytest.raises(NotFound, match=r"v\.com/d=nowhere.*broken\.yaml"):
        known.resolve(["v.com/d=x", "v.com/d=nowhere"])
    assert known.resolve(["v.com/d=x"]).env == ("X=a.json",)


def test_a_broken_spec_is_logged_in_the_words_that_tools_look_for(
    places: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    write(places[0], "a.json", "x")
    (places[0] / "broken.yaml").write_text("kind: [")
    registry(places).resolve(["v.com/d=x"])
    assert [record.getMessage() for record in caplog.records] == [texts.CDI_ERRORS]


def test_other_files_do_not_count(places: tuple[Path, Path]) -> None:
    write(places[0], "a.json.tmp", "x")
    (places[0] / "d.json").mkdir()
    os.mkfifo(places[0] / "fifo.json")
    with pytest.raises(NotFound):
        registry(places).resolve(["v.com/d=x"])


def test_a_change_is_seen_at_once(places: tuple[Path, Path]) -> None:
    known = registry(places)
    with pytest.raises(NotFound):
        known.resolve(["v.com/d=x"])
    write(places[1], "a.json", "x")
    assert known.resolve(["v.com/d=x"]).env == ("X=a.json",)
    write(places[1], "a.json", "x", edits={"env": ["NEW=1"]})
    assert known.resolve(["v.com/d=x"]).env == ("NEW=1",)
    (places[1] / "a.json").unlink()
    with pytest.raises(NotFound):
        known.resolve(["v.com/d=x"])
    known.close()


def test_one_directory_under_two_names_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "run", "a.json", "x")
    (tmp_path / "var").symlink_to("run")
    assert Registry([str(tmp_path / "run"), str(tmp_path / "var")]).resolve(["v.com/d=x"]).env == ("X=a.json",)


def edited(places: tuple[Path, Path], **edits: Any) -> Edits:
    write(places[0], "a.json", "x", edits=edits)
    return registry(places).resolve(["v.com/d=x"])


def test_what_a_node_leaves_out_is_the_hosts(places: tuple[Path, Path]) -> None:
    (node,) = edited(places, deviceNodes=[{"path": "/dev/mine", "hostPath": "/dev/null"}]).nodes
    assert (node.path, node.host_path, node.type, node.major, node.minor) == ("/dev/mine", "/dev/null", "c", 1, 3)
    assert (node.mode, node.uid, node.permissions) == (0o666, None, "rwm")


def test_a_node_that_is_told_completely_need_not_be_there(places: tuple[Path, Path]) -> None:
    told = {"path": "/dev/none", "type": "b", "major": 250, "minor": 9, "permissions": "rr", "uid": 5}
    (node,) = edited(places, deviceNodes=[told]).nodes
    assert (node.type, node.major, node.minor, node.mode, node.uid, node.permissions) == ("b", 250, 9, None, 5, "r")


@pytest.mark.parametrize("node", [{"path": "/dev/none"}, {"path": "/etc"}, {"path": "/dev/null", "type": "b"}])
def test_a_node_that_is_not_there_or_something_else_is_refused(places: tuple[Path, Path], node: dict[str, str]) -> None:
    with pytest.raises(Invalid, match=node["path"]):
        edited(places, deviceNodes=[node])


def test_a_node_on_a_file_system_that_may_hang_must_be_told_completely(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("criollo.cdi.registry.is_near", lambda path: False)
    (node,) = edited(places, deviceNodes=[{"path": "/far/x", "type": "c", "major": 5, "minor": 6}]).nodes
    assert (node.type, node.major, node.minor) == ("c", 5, 6)
    with pytest.raises(Invalid, match=r"/far/y.*may hang; give type, major and minor"):
        edited(places, deviceNodes=[{"path": "/far/y"}])


def test_a_pipe_is_a_node_too(places: tuple[Path, Path], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (node,) = edited(places, deviceNodes=[{"path": "/dev/pipe", "hostPath": str(tmp_path / "pipe")}]).nodes
    assert (node.type, node.major, node.minor) == ("p", 0, 0)


def test_mounts_are_binds_unless_told_otherwise(places: tuple[Path, Path]) -> None:
    mounts = [
        {"hostPath": "/lib", "containerPath": "/opt//lib/", "options": ["ro"]},
        {"hostPath": "/lib", "containerPath": "/opt/b", "options": ["bind", "ro"]},
        {"hostPath": "tmpfs", "containerPath": "/opt/t", "type": "tmpfs"},
    ]
    found = edited(places, mounts=mounts).mounts
    assert [(each.destination, each.type, each.options) for each in found] == [
        ("/opt/lib", "bind", ("rbind", "ro")),
        ("/opt/b", "bind", ("bind", "ro")),
        ("/opt/t", "tmpfs", ()),
    ]


def test_hooks_have_an_environment_of_their_own(places: tuple[Path, Path]) -> None:
    hooks = [{"hookName": "createRuntime", "path": "/h"}, {"hookName": "createRuntime", "path": "/i", "env": ["A=b"]}]
    found = edited(places, hooks=hooks).hooks.create_runtime
    assert [each.env for each in found] == [HOOK_ENV, ("A=b",)]


def test_the_rest_is_carried_over(places: tuple[Path, Path]) -> None:
    found = edited(
        places,
        netDevices=[{"hostInterfaceName": "e1", "name": "n1"}],
        intelRdt={"closID": "c", "memBwSchema": "MB:0=1"},
        additionalGids=[0, 44],
    )
    assert (found.net_devices, found.net_devices_of, found.gids) == ({"e1": "n1"}, ("v.com/d=x",), (44,))
    assert found.intel_rdt is not None
    assert (found.intel_rdt.clos_id, found.intel_rdt.mem_bw_schema) == ("c", "MB:0=1")


def test_fields_count_before_annotations_and_twins_once() -> None:
    annotations = {"cdi.k8s.io/z": "v/d=2,v/d=1", "cdi.k8s.io/a": "v/d=3", "other": "v/d=9"}
    assert requested(["v/d=1"], annotations) == ("v/d=1", "v/d=3", "v/d=2")


@pytest.mark.parametrize("annotations", [{"cdi.k8s.io/a": ""}, {"cdi.k8s.io/a": "v/d=1, v/d=2"}, {"cdi.k8s.io/a": "/dev/x"}])
def test_what_is_no_name_is_refused(annotations: dict[str, str]) -> None:
    with pytest.raises(Invalid, match="vendor/class=device"):
        requested([], annotations)


@pytest.mark.parametrize("name", ["enableMonitoring", "enableCMT", "enableMBM"])
def test_monitoring_is_asked_for_in_the_words_of_each_version(places: tuple[Path, Path], name: str) -> None:
    found = edited(places, intelRdt={"closID": "c", name: True}).intel_rdt
    assert found is not None
    assert found.enable_monitoring
    plain = edited(places, intelRdt={"closID": "c", name: False}).intel_rdt
    assert plain is not None
    assert not plain.enable_monitoring
