"""What of the configuration reaches the images."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from criollo.cli.flags import setting_flags
from criollo.config.settings import Settings
from criollo.engine import images as engine
from criollo.errors import Forbidden, Invalid
from criollo.model.ids import ImageId
from criollo.oci.reference import Reference
from criollo.storage.options import Options
from criollo.storage.storage_conf import StorageConf


def settings(*, image: dict[str, Any] | None = None, **fields: Any) -> Settings:
    plain = Settings()
    return replace(plain, image=replace(plain.image, **(image or {})), **fields)


def conf(directory: Path, text: str) -> StorageConf:
    path = directory / "storage.conf"
    path.write_text(text)
    return StorageConf({"CONTAINERS_STORAGE_CONF": str(path)})


def test_every_driver_of_the_configuration_can_be_made() -> None:
    assert set(engine.DRIVERS) == {"overlay", "btrfs", "vfs"}
    assert Settings().storage_driver in engine.DRIVERS


def test_options_of_crio_conf_stand_before_those_of_storage_conf(tmp_path: Path) -> None:
    found = conf(tmp_path, '[storage.options.overlay]\nsize = "1GiB"\n')
    assert engine.storage_options(settings(), found).limit.bytes == 1 << 30
    asked = settings(storage_option=("overlay.size=2GiB",))
    assert engine.storage_options(asked, found).limit.bytes == 2 << 30


def test_without_any_there_is_no_limit(tmp_path: Path) -> None:
    assert engine.storage_options(settings(), conf(tmp_path, "")) == Options()


def test_a_wrong_option_of_storage_conf_is_told_with_its_file(tmp_path: Path) -> None:
    found = conf(tmp_path, '[storage.options.overlay]\nsize = "lots"\n')
    with pytest.raises(Invalid, match=r"storage\.conf.*lots"):
        engine.storage_options(settings(), found)


def applied(asked: Settings) -> Any:
    found: Any = SimpleNamespace()
    pods: Any = SimpleNamespace()
    engine.apply_image_settings(asked, found, pods)
    return SimpleNamespace(images=found, pods=pods)


def test_the_pause_image_is_pinned_beside_the_others() -> None:
    found = applied(settings(image={"pinned_images": ("base:1",), "pause_image": "pause:3.10"}))
    assert found.images.pinned == ("base:1", "pause:3.10")
    assert found.pods.pause_image == "pause:3.10"


def test_without_a_pause_image_nothing_is_pinned_for_it() -> None:
    found = applied(settings(image={"pinned_images": (), "pause_image": ""}))
    assert found.images.pinned == ()


def test_the_pause_command_is_words() -> None:
    assert applied(settings(image={"pause_command": "/pause -x"})).pods.pause_command == ("/pause", "-x")


def settled(asked: Settings, home: Path, *containers: Any) -> Any:
    found: Any = SimpleNamespace()
    state: Any = SimpleNamespace(containers=containers)
    engine.settle_images(asked, {"HOME": str(home)}, found, state)
    return found


def test_images_in_use_are_those_that_run_and_those_that_are_mounted(tmp_path: Path) -> None:
    one = SimpleNamespace(id="c1", image_id=ImageId("a"), volume_images=())
    two = SimpleNamespace(id="c2", image_id=ImageId("b"), volume_images=(ImageId("a"),))
    found = settled(settings(runroot=str(tmp_path), image=accepting(tmp_path)), tmp_path, one, two)
    assert (found.in_use("a"), found.in_use("b"), found.in_use("c")) == (["c1", "c2"], ["c2"], [])


def test_directories_that_are_not_set_are_none(tmp_path: Path) -> None:
    image = accepting(tmp_path) | {"namespaced_auth_dir": "", "big_files_temporary_dir": ""}
    found = settled(settings(runroot=str(tmp_path), image=image), tmp_path)
    assert (found.namespaced_auth_dir, found.big_files) == (None, None)


def test_credentials_that_a_killed_daemon_had_in_use_are_forgotten(tmp_path: Path) -> None:
    taken = tmp_path / "auth/in-use/shop-0123.json"
    taken.parent.mkdir(parents=True)
    taken.write_text("{}")
    image = accepting(tmp_path) | {"namespaced_auth_dir": str(tmp_path / "auth")}
    settled(settings(runroot=str(tmp_path), image=image), tmp_path)
    assert not taken.exists()


def test_a_policy_that_cannot_be_used_does_not_let_us_start(tmp_path: Path) -> None:
    image = accepting(tmp_path)
    Path(image["signature_policy"]).write_text("{}")
    with pytest.raises(Invalid):
        settled(settings(runroot=str(tmp_path), image=image), tmp_path)


def accepting(directory: Path) -> dict[str, Any]:
    """A policy that takes every image."""
    path = directory / "policy.json"
    path.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return {"signature_policy": str(path)}


def test_the_files_of_registries_that_the_configuration_names_are_read(tmp_path: Path) -> None:
    (tmp_path / "r.conf").write_text('[[registry]]\nlocation = "r.example"\nblocked = true\n')
    (tmp_path / "d").mkdir()
    (tmp_path / "d/1.conf").write_text('[[registry]]\nlocation = "s.example"\nblocked = true\n')
    (tmp_path / "r.conf.d").mkdir()
    (tmp_path / "r.conf.d/1.conf").write_text("not read")
    asked = settings(image={"registries_conf": str(tmp_path / "r.conf"), "registries_conf_dir": str(tmp_path / "d")})
    hosts = engine.open_registry(asked, {"CONTAINERS_REGISTRIES_CONF": "/absent"}).hosts
    for name in ("r.example/a", "s.example/a"):
        with pytest.raises(Forbidden):
            hosts.endpoints(Reference.parse(name))


def test_without_home_the_files_of_the_user_are_found_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pwd.getpwuid", lambda uid: SimpleNamespace(pw_dir=str(tmp_path)))
    own = tmp_path / ".config/containers"
    own.mkdir(parents=True)
    (own / "registries.conf").write_text('short-name-mode = "permissive"')
    (own / "policy.json").write_text('{"default":[{"type":"reject"}]}')
    client = engine.open_registry(settings(image={"short_name_mode": ""}), {})
    assert client.hosts.mode.value == "permissive"
    assert engine.open_policies(settings(), {}).find().source == str(own / "policy.json")


def test_the_flags_of_the_command_line_name_the_files() -> None:
    names = {name for option in setting_flags() for name in option.opts}
    assert {"--registries-conf", "--registries-conf-dir"} <= names
