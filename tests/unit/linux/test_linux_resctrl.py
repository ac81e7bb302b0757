"""What resctrl shares out, and its groups; a directory stands in for it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import HostFailed
from criollo.linux import resctrl
from criollo.linux.resctrl import Bandwidth, Cache, Hardware


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, content in {
        "schemata": "    MB:0=100;1=100\n    L3:0=fff;1=fff\n",
        "info/L3/cbm_mask": "fff\n",
        "info/L3/min_cbm_bits": "2\n",
        "info/MB/min_bandwidth": "10\n",
        "info/MB/bandwidth_gran": "10\n",
        "info/last_cmd_status": "ok\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_hardware_is_what_the_kernel_says(root: Path) -> None:
    assert resctrl.look(root) == Hardware({"L3": Cache(0xFFF, 2, (0, 1))}, Bandwidth(10, 10, (0, 1), in_mbps=False))


def test_more_than_a_hundred_is_no_percentage(root: Path) -> None:
    (root / "schemata").write_text("MB:0=2048000\n")
    found = resctrl.look(root)
    assert found is not None
    assert found == Hardware({}, Bandwidth(10, 10, (0,), in_mbps=True))


def test_a_node_without_it_has_none(tmp_path: Path) -> None:
    assert resctrl.look(tmp_path) is None


def test_a_group_is_made_and_gets_another_share(root: Path) -> None:
    for text in ("L3:0=f\n", "L3:0=3\n", ""):
        resctrl.make_group("gold", text, root)
    assert (root / "gold" / "schemata").read_text() == "L3:0=3\n"


def test_a_refusal_has_the_kernels_reason(root: Path) -> None:
    (root / "gold").write_text("in the way")
    (root / "info" / "last_cmd_status").write_text("no group left\n")
    with pytest.raises(HostFailed, match="no group left"):
        resctrl.make_group("gold", "L3:0=f\n", root)


@given(st.text(max_size=40) | st.text("L3MB:0123=f;\n", max_size=40))
def test_any_text_is_parsed(text: str) -> None:
    for values in resctrl.parse_schemata(text).values():
        assert all(value >= 0 for value in values.values())
