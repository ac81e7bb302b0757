"""storage.storage_conf: which other stores are read."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from criollo.errors import CriolloError, Invalid
from criollo.storage.storage_conf import MAX_STORES, StorageConf, driver_options, find_stores, find_unfollowed


def at(path: Path, environ: dict[str, str] | None = None) -> StorageConf:
    return StorageConf({"CONTAINERS_STORAGE_CONF": str(path), **(environ or {})})


def conf(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> StorageConf:
    path = tmp_path / "storage.conf"
    path.write_text(text)
    return at(path, environ)


def test_the_list_of_the_file_comes_after_the_options(tmp_path: Path) -> None:
    path = conf(tmp_path, '[storage]\ngraphroot = "/g"\n[storage.options]\nadditionalimagestores = ["/b", "/a,/c", "/b"]\n')
    options = ["overlay.imagestore=/z", "overlay.mountopt=nodev", "overlay.additionalimagestore=/a,/y"]
    assert find_stores(path, options) == (Path("/z"), Path("/a"), Path("/y"), Path("/b"), Path("/c"))


def test_nothing_said_is_no_store(tmp_path: Path) -> None:
    assert find_stores(conf(tmp_path, ""), []) == ()
    assert find_stores(conf(tmp_path, '[storage]\ndriver = "overlay"\n'), ["overlay.imagestore="]) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[storage", "TOML"),
        ('storage = "no"', "a table"),
        ("[storage]\noptions = 3", "a table"),
        ('[storage.options]\nadditionalimagestores = "/a"', "a list of paths"),
        ("[storage.options]\nadditionalimagestores = [3]", "a list of paths"),
        ('[storage.options]\nadditionalimagestores = ["relative"]', "an absolute path"),
        ('[storage.options]\nadditionalimagestores = ["/a\\u0000b"]', "an absolute path"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        find_stores(conf(tmp_path, text), [])


def test_too_many_stores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=f"at most {MAX_STORES}"):
        find_stores(conf(tmp_path, ""), ["overlay.imagestore=" + ",".join(f"/s{number}" for number in range(MAX_STORES + 1))])


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CriolloError, match=r"storage\.conf"):
        find_stores(at(tmp_path / "storage.conf"), [])


def test_the_environment_names_the_file() -> None:
    assert StorageConf({"CONTAINERS_STORAGE_CONF": "/x/y.conf"}).path == Path("/x/y.conf")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text())
def test_any_text_is_stores_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "storage.conf"
    path.write_text(text, errors="surrogatepass")
    with contextlib.suppress(Invalid):
        assert isinstance(find_stores(at(path), [text]), tuple)


OVERLAY = '[storage.options.overlay]\nsize = "10GiB"\ninodes = "1000"\nmountopt = "nodev,metacopy=on"\n'


def test_options_of_the_driver_are_those_of_its_table(tmp_path: Path) -> None:
    path = conf(tmp_path, OVERLAY)
    assert driver_options(path, "overlay") == (
        "overlay.size=10GiB",
        "overlay.inodes=1000",
        "overlay.mountopt=nodev,metacopy=on",
    )
    assert driver_options(path, "btrfs") == driver_options(path, "vfs") == ()


def test_the_table_of_all_drivers_serves_where_the_driver_has_none(tmp_path: Path) -> None:
    path = conf(tmp_path, '[storage.options]\nsize = "1GiB"\ninodes = "5"\n[storage.options.btrfs]\nsize = "2GiB"\n')
    assert driver_options(path, "overlay") == ("overlay.size=1GiB",)
    assert driver_options(path, "btrfs") == ("btrfs.size=2GiB",)


@pytest.mark.parametrize("text", ["[storage.options.overlay]\nsize = 10", "[storage.options]\noverlay = 3"])
def test_an_option_that_cannot_be_meant_is_refused_with_its_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(Invalid, match=r"storage\.conf"):
        driver_options(conf(tmp_path, text), "overlay")


OURS = {"driver": "overlay", "imagestore": "", "graphroot": "/var/lib/criollo", "runroot": "/run/criollo"}


def told(found: StorageConf, ours: dict[str, str] = OURS) -> dict[str, str]:
    return {each.name: each.remedy for each in find_unfollowed(found, ours)}


def test_what_packages_ship_is_no_matter(tmp_path: Path) -> None:
    text = (
        '[storage]\ndriver = "overlay"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n'
        '[storage.options]\nadditionalimagestores = ["/a"]\ndisable-volatile = false\n[storage.options.zfs]\nsize = "1"\n'
    )
    assert told(conf(tmp_path, text + OVERLAY)) == {}
    assert told(conf(tmp_path, "", {"STORAGE_DRIVER": "overlay"})) == {}


def test_what_does_nothing_is_told_with_what_does_it(tmp_path: Path) -> None:
    text = (
        '[storage]\ndriver = "btrfs"\nrunroot = "/r"\ngraphroot = "/g"\nimagestore = "/i"\n'
        '[storage.options]\nimagestore = "/i"\n'
        'additionallayerstores = ["/l"]\n[storage.options.overlay]\nmount_program = "/m"\nignore_chown_errors = "false"\n'
    )
    found = told(conf(tmp_path, text, {"STORAGE_DRIVER": "vfs", "STORAGE_OPTS": "overlay.size=1g"}))
    assert list(found) == [
        "storage.driver",
        "storage.runroot",
        "storage.graphroot",
        "storage.imagestore",
        "storage.options.imagestore",
        "storage.options.additionallayerstores",
        "storage.options.overlay.mount_program",
        "STORAGE_DRIVER",
        "STORAGE_OPTS",
    ]
    assert found["storage.driver"] == "set storage_driver in [crio]"
    assert "storage_option" in found["STORAGE_OPTS"]
    same = {"driver": "btrfs", "imagestore": "/i", "graphroot": "/g", "runroot": "/r"}
    assert list(told(conf(tmp_path, text), ours=same)) == ["storage.options.additionallayerstores"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.sampled_from(["storage", "storage.options", "storage.options.overlay"]),
    key=st.sampled_from(["size", "driver", "mountopt", "overlay", "options", "x"]),
    value=st.sampled_from(['"a"', "3", "[]", "{}", "{size = 1}", "true", '["/a"]', "1979-05-27"]),
)
def test_any_key_is_read_or_refused(tmp_path: Path, table: str, key: str, value: str) -> None:
    path = conf(tmp_path, f"[{table}]\n{key} = {value}\n")
    with contextlib.suppress(Invalid):
        assert all(each.remedy for each in find_unfollowed(path, OURS))
    with contextlib.suppress(Invalid):
        assert all("=" in option for option in driver_options(path, "overlay"))


def test_the_file_is_read_once(tmp_path: Path) -> None:
    found = conf(tmp_path, OVERLAY)
    first = driver_options(found, "overlay")
    (tmp_path / "storage.conf").unlink()
    assert (driver_options(found, "overlay"), find_stores(found, [])) == (first, ())


def test_a_file_that_nobody_needs_is_not_read(tmp_path: Path) -> None:
    assert driver_options(at(tmp_path / "none.conf"), "vfs") == ()
