"""Which hooks of a node a container gets, and in which order."""

import json
from pathlib import Path
from typing import Any

import pytest

from criollo.errors import NotFound
from criollo.hooks.directory import HookDirectories
from criollo.oci.runtime_spec import Hooks


def write(directory: Path, name: str, **changes: Any) -> None:
    directory.mkdir(exist_ok=True)
    document = {
        "version": "1.0.0",
        "hook": {"path": "/bin/true", "args": [name]},
        "when": {"always": True},
        "stages": ["poststop"],
    }
    (directory / name).write_text(json.dumps({**document, **changes}))


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "usr", tmp_path / "etc"


def hooks(places: tuple[Path, Path]) -> HookDirectories:
    return HookDirectories([str(each) for each in places])


def names(found: Hooks | None) -> list[str]:
    return [each.args[0] for each in found.poststop] if found is not None else []


def of(known: HookDirectories, **annotations: str) -> list[str]:
    return names(known.of(annotations, "/bin/sh", has_bind_mounts=False))


def test_hooks_come_in_the_order_of_their_files(places: tuple[Path, Path]) -> None:
    for name in ("b.json", "A.json", "c.json"):
        write(places[name == "b.json"], name)
    assert of(hooks(places)) == ["A.json", "b.json", "c.json"]


def test_a_later_directory_takes_the_place_of_a_file(places: tuple[Path, Path]) -> None:
    write(places[0], "a.json")
    write(places[1], "a.json", when={"annotations": {"^x$": ".*"}})
    assert of(hooks(places)) == []
    assert of(hooks(places), x="1") == ["a.json"]


def test_a_broken_file_leaves_the_others(places: tuple[Path, Path]) -> None:
    write(places[0], "a.json", stages=["never"])
    write(places[0], "b.json")
    (places[0] / "README").write_text("no hook")
    assert of(hooks(places)) == ["b.json"]


def test_a_change_is_seen_at_once(places: tuple[Path, Path]) -> None:
    known = hooks(places)
    assert known.is_empty()
    assert known.of({}, "/bin/sh", has_bind_mounts=False) is None
    write(places[0], "a.json")
    assert of(known) == ["a.json"]
    (places[0] / "a.json").unlink()
    assert known.is_empty()
    known.close()


def test_a_hook_that_is_no_program_is_told_with_its_file(places: tuple[Path, Path]) -> None:
    write(places[0], "a.json", hook={"path": "/no/such/hook"})
    with pytest.raises(NotFound, match=r"/no/such/hook.*a\.json"):
        of(hooks(places))


def test_a_program_on_a_file_system_that_may_hang_is_left_to_the_runtime(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("criollo.hooks.directory.is_near", lambda path: False)
    write(places[0], "a.json", hook={"path": "/no/such/hook"})
    assert hooks(places).of({}, "sh", has_bind_mounts=False) is not None
