"""Classes of cache and memory bandwidth."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Denied, HostFailed, Invalid, NotFound, Unsupported
from criollo.oci.runtime_spec import IntelRdt
from criollo.specgen import rdt

FILE = """
options: {l3: {optional: true}}
partitions:
  exclusive:
    l3Allocation: {all: "60%"}
    classes:
      gold: {l3Allocation: {all: "100%", 1-2: "0x70"}, kubernetes: {denyPodAnnotation: true}}
  shared:
    l3Allocation: {all: "20%"}
    mbAllocation: {all: ["50%", "1000MBps"]}
    classes:
      bronze: {l3Allocation: {all: {unified: "100%", code: "20-40%", data: 0-1}}}
"""


@pytest.fixture
def resctrl(tmp_path: Path) -> Path:
    root = tmp_path / "resctrl"
    for name, content in {
        "schemata": "MB:0=100;1=100\nL3:0=fff;1=fff\n",
        "info/L3/cbm_mask": "fff",
        "info/L3/min_cbm_bits": "1",
        "info/MB/min_bandwidth": "10",
        "info/MB/bandwidth_gran": "10",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (tmp_path / "file").write_text(FILE)
    return root


def test_classes_are_groups_with_their_shares(tmp_path: Path, resctrl: Path) -> None:
    find = rdt.open_rdt(tmp_path / "file", root=resctrl)
    assert find is not None
    assert find("bronze", True) == find("bronze", False) == IntelRdt(clos_id="bronze")
    assert (resctrl / "gold" / "schemata").read_text() == "L3:0=7f;1=70\nMB:0=100;1=100\n"
    assert (resctrl / "bronze" / "schemata").read_text() == "L3:0=180;1=180\nMB:0=50;1=50\n"


def test_a_class_may_be_closed_to_annotations_of_pods(tmp_path: Path, resctrl: Path) -> None:
    find = rdt.open_rdt(tmp_path / "file", root=resctrl)
    assert find is not None
    assert find("gold", False) == IntelRdt(clos_id="gold")
    with pytest.raises(Denied, match="gold"):
        find("gold", True)


def test_an_unknown_class_is_named_with_those_that_are_there(tmp_path: Path, resctrl: Path) -> None:
    find = rdt.open_rdt(tmp_path / "file", root=resctrl)
    assert find is not None
    with pytest.raises(NotFound, match="has bronze, gold"):
        find("iron", True)


def test_a_group_that_the_kernel_refuses_stops_the_start(tmp_path: Path, resctrl: Path) -> None:
    (resctrl / "bronze").write_text("in the way")
    with pytest.raises(HostFailed, match="group bronze"):
        rdt.open_rdt(tmp_path / "file", root=resctrl)


def test_what_the_hardware_lacks_must_be_optional(tmp_path: Path, resctrl: Path) -> None:
    (resctrl / "schemata").write_text("MB:0=100\n")
    (tmp_path / "file").write_text(FILE.replace("{optional: true}", "{optional: false}"))
    with pytest.raises(Unsupported, match=r"options\.l3\.optional"):
        rdt.open_rdt(tmp_path / "file", root=resctrl)
    (tmp_path / "file").write_text(FILE)
    assert rdt.open_rdt(tmp_path / "file", root=resctrl) is not None
    assert (resctrl / "gold" / "schemata").read_text() == "MB:0=100\n"


def test_a_node_without_resctrl_has_no_classes(tmp_path: Path, resctrl: Path) -> None:
    assert rdt.open_rdt(tmp_path / "file", root=tmp_path / "none") is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("partitions: {p: {l3Allocation: {all: 0xf0}}}", "share as text"),
        ("partitions: {p: {classes: {info: {}}}}", "partitions.p.classes"),
        ("partitions: {p: {classes: {../x: {}}}}", "partitions.p.classes"),
        ("partitions: {p: {classes: {a: {}}}, q: {classes: {a: {}}}}", "each class in one partition"),
        ("partitions: {p: {l3Allocation: {all: much}}}", "partitions.p.l3Allocation.all"),
        ("partitions: {p: {l3Allocation: {some: 50%}}}", "partitions.p.l3Allocation"),
        ("partitions: {p: {classes: {a: {mbAllocation: {all: [50]}}}}}", "classes.a.mbAllocation.all"),
        ("partitions: {p: {class: {}}}", "class"),
        ("[]", "object"),
    ],
)
def test_a_slip_is_found_when_the_file_is_read(text: str, place: str) -> None:
    with pytest.raises(Invalid, match=place):
        rdt.parse_plan(text.encode(), "file")


@given(st.binary(max_size=60) | st.text("partitions: {}[]%0-9classes\n", max_size=50).map(str.encode))
def test_any_bytes_are_classes_or_invalid(raw: bytes) -> None:
    with contextlib.suppress(Invalid):
        rdt.parse_plan(raw, "file")
