"""registry.conf_files: which files of registries are in force, in which order."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import CriolloError
from criollo.registry import conf_files
from criollo.registry.conf_files import find_aliases_file, find_drop_ins, find_registries_conf
from criollo.registry.hosts import Hosts


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system of our own; the home of its user is `home` in it."""
    monkeypatch.setattr(conf_files, "SYSTEM_FILE", tmp_path / "etc/registries.conf")
    monkeypatch.setattr(conf_files, "SYSTEM_DIRECTORY", tmp_path / "etc/registries.conf.d")
    monkeypatch.setattr(conf_files, "VENDOR_FILE", tmp_path / "usr/registries.conf")
    (tmp_path / "home/.config/containers").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr").mkdir()
    return tmp_path


def test_without_a_file_the_directories_of_system_and_user_count(system: Path) -> None:
    home = system / "home"
    users = home / ".config/containers/registries.conf.d"
    assert find_registries_conf({"HOME": str(home)}) == (None, (system / "etc/registries.conf.d", users))
    assert find_registries_conf({}) == (None, (system / "etc/registries.conf.d",))


def test_the_system_goes_before_the_vendor_and_has_the_users_drop_ins(system: Path) -> None:
    users = system / "home/.config/containers/registries.conf.d"
    for place in ("usr", "etc"):
        file = system / place / "registries.conf"
        file.write_text("")
        assert find_registries_conf({"HOME": str(system / "home")}) == (file, (system / "etc/registries.conf.d", users))


def test_a_file_of_the_user_leaves_the_system_out(system: Path) -> None:
    (system / "etc/registries.conf").write_text("")
    file = system / "home/.config/containers/registries.conf"
    file.write_text("")
    assert find_registries_conf({"HOME": str(system / "home")}) == (file, (file.with_name("registries.conf.d"),))


@pytest.mark.parametrize("variable", ["CONTAINERS_REGISTRIES_CONF", "CONTAINER_REGISTRIES_CONF"])
def test_a_named_file_keeps_the_usual_directories_and_brings_its_own(system: Path, variable: str) -> None:
    (system / "home/.config/containers/registries.conf").write_text("")
    found = find_registries_conf({variable: "/n/r.conf", "HOME": str(system / "home")})
    users = system / "home/.config/containers/registries.conf.d"
    assert found == (Path("/n/r.conf"), (system / "etc/registries.conf.d", users, Path("/n/r.conf.d")))
    assert find_registries_conf({variable: "/n/r.conf", f"{variable}_DIR": "/d"}) == (Path("/n/r.conf"), (Path("/d"),))


def test_a_named_directory_takes_the_place_of_all_others(system: Path) -> None:
    environ = {"HOME": str(system / "home"), "CONTAINERS_REGISTRIES_CONF_DIR": "/d"}
    assert find_registries_conf(environ) == (None, (Path("/d"),))
    file = system / "home/.config/containers/registries.conf"
    file.write_text("")
    assert find_registries_conf(environ) == (file, (Path("/d"),))


def test_what_our_configuration_names_wins_over_the_environment(system: Path) -> None:
    environ = {"CONTAINERS_REGISTRIES_CONF": "/n/r.conf", "CONTAINERS_REGISTRIES_CONF_DIR": "/d"}
    assert find_registries_conf(environ, conf="/o.conf", directory="/o.d") == (Path("/o.conf"), (Path("/o.d"),))


def test_drop_ins_come_by_directory_and_name_and_not_from_below(tmp_path: Path) -> None:
    for name in ("a.d/2.conf", "a.d/10.conf", "a.d/x.txt", "a.d/below/0.conf", "b.d/1.conf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "a.d/odd.conf").mkdir()
    found = find_drop_ins([tmp_path / "a.d", tmp_path / "absent", tmp_path / "b.d"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a.d/10.conf", "a.d/2.conf", "b.d/1.conf"]


def test_a_directory_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(CriolloError, match="loop"):
        find_drop_ins([tmp_path / "loop"])


def test_the_last_directory_wins(tmp_path: Path) -> None:
    for place, mode in (("etc", "enforcing"), ("own", "permissive")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "m.conf").write_text(f'short-name-mode = "{mode}"')
    assert Hosts.load(None, [tmp_path / "etc", tmp_path / "own"]).mode.value == "permissive"
    assert Hosts.load(None, [tmp_path / "own", tmp_path / "etc"]).mode.value == "enforcing"


def test_recorded_aliases_stand_where_other_tools_write_them() -> None:
    assert str(find_aliases_file({}, 0)) == "/var/cache/containers/short-name-aliases.conf"
    assert str(find_aliases_file({"HOME": "/h"}, 7)) == "/h/.cache/containers/short-name-aliases.conf"
    assert find_aliases_file({}, 7) is None


@given(
    st.dictionaries(st.sampled_from([*conf_files.FILE_VARIABLES, *conf_files.DIRECTORY_VARIABLES, "HOME"]), st.text(max_size=9))
)
def test_any_environment_leads_to_files(environ: dict[str, str]) -> None:
    environ = {name: text.replace("\0", "") for name, text in environ.items()}
    assert all(isinstance(path, Path) for path in find_registries_conf(environ).directories)
