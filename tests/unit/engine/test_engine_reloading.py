"""Keys that change while the daemon runs."""

import asyncio
import functools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from criollo.aio import threads
from criollo.config.places import find_setting
from criollo.config.settings import Settings
from criollo.containers.shape import Rules
from criollo.engine.reloading import GROUPS, group_of, prepare
from criollo.errors import Invalid, NotFound
from criollo.security import apparmor
from criollo.specgen import rdt


def test_keys_are_those_of_the_configuration() -> None:
    assert [key for key in GROUPS if find_setting(tuple(key.split(".")[1:])) is None] == []


def test_all_that_crio_reloads_is_reloaded() -> None:
    crio = (  # pkg/config/reload.go of CRI-O 1.35
        *("crio.runtime.log_level", "crio.runtime.log_filter", "crio.image.pause_image", "crio.image.pause_image_auth_file"),
        *("crio.image.pause_command", "crio.image.pinned_images", "crio.runtime.decryption_keys_path"),
        *("crio.runtime.seccomp_profile", "crio.runtime.apparmor_profile", "crio.runtime.blockio_config_file"),
        *("crio.runtime.rdt_config_file", "crio.runtime.default_runtime", "crio.runtime.cdi_spec_dirs"),
        "crio.runtime.runtimes.kata.runtime_path",
    )
    assert [key for key in crio if not group_of(key)] == []


def test_others_wait_for_a_restart() -> None:
    assert [group_of(key) for key in ("crio.root", "crio.runtime.pids_limit", "crio.runtime.cgroup_manager")] == ["", "", ""]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Any]:
    """As much of an engine as classes and AppArmor need, on a node that has both."""
    containers = SimpleNamespace(
        rules=Rules(shared_cpus="7"),
        host=SimpleNamespace(apparmor=True),
        places=SimpleNamespace(runroot=tmp_path),
        apparmor="of before",
    )
    yield SimpleNamespace(containers=containers)
    threads.close()


def apply(engine: Any, group: str, **runtime: str) -> None:
    plain = Settings()
    asyncio.run(prepare(engine, replace(plain, runtime=replace(plain.runtime, **runtime)), group))()


@pytest.fixture
def resctrl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a kernel whose hardware shares out one cache."""
    root = tmp_path / "resctrl"
    hardware = {
        "info/L3/cbm_mask": "ff\n",
        "info/L3/min_cbm_bits": "1\n",
        "info/L3/shareable_bits": "0\n",
        "info/L3/num_closids": "8\n",
        "schemata": "L3:0=ff\n",
    }
    for name, content in hardware.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    monkeypatch.setattr(rdt, "open_rdt", functools.partial(rdt.open_rdt, root=root))
    return root


def test_classes_of_rdt_are_made_anew(engine: Any, tmp_path: Path, resctrl: Path) -> None:
    file = tmp_path / "rdt.yaml"
    text = "partitions: {{all: {{l3Allocation: {{all: 100%}}, classes: {{{}: {{l3Allocation: {{all: {}}}}}}}}}}}"
    file.write_text(text.format("gold", "50%"))
    apply(engine, "classes", rdt_config_file=str(file))
    assert engine.containers.rules.rdt("gold", False).clos_id == "gold"
    assert engine.containers.rules.shared_cpus == "7"
    file.write_text(text.format("silver", "25%"))
    apply(engine, "classes", rdt_config_file=str(file))
    assert engine.containers.rules.rdt("silver", False).clos_id == "silver"
    with pytest.raises(NotFound, match="gold"):
        engine.containers.rules.rdt("gold", False)
    assert [(resctrl / name / "schemata").read_text() for name in ("gold", "silver")] == ["L3:0=f\n", "L3:0=3\n"]
    file.write_text("partitions: 3")
    with pytest.raises(Invalid, match=r"rdt\.yaml"):
        apply(engine, "classes", rdt_config_file=str(file))
    assert engine.containers.rules.rdt("silver", False).clos_id == "silver"


def test_the_default_profile_of_apparmor_is_opened_anew(engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def opened(name: str, *, record: Path) -> tuple[str, Path]:
        if name == "absent":
            raise NotFound("AppArmor profile", name)
        return name, record

    monkeypatch.setattr(apparmor, "open_apparmor", opened)
    apply(engine, "apparmor", apparmor_profile="mine")
    assert engine.containers.apparmor == ("mine", tmp_path / "apparmor")
    with pytest.raises(NotFound, match="absent"):
        apply(engine, "apparmor", apparmor_profile="absent")
    assert engine.containers.apparmor == ("mine", tmp_path / "apparmor")
