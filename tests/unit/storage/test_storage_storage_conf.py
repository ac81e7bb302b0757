"""storage.storage_conf: which other stores are read."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from criollo.errors import CriolloError, Invalid
from criollo.storage.storage_conf import MAX_STORES, find_storage_conf, find_stores


def conf(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "storage.conf"
    path.write_text(text)
    return path


def test_the_list_of_the_file_comes_after_the_options(tmp_path: Path) -> None:
    path = conf(tmp_path, '[storage]\ngraphroot = "/g"\n[storage.options]\nadditionalimagestores = ["/b", "/a,/c", "/b"]\n')
    options = ["overlay.imagestore=/z", "overlay.mountopt=nodev", "overlay.additionalimagestore=/a,/y"]
    assert find_stores(path, options) == (Path("/z"), Path("/a"), Path("/y"), Path("/b"), Path("/c"))


def test_nothing_said_is_no_store(tmp_path: Path) -> None:
    assert find_stores(None, []) == ()
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


def test_too_many_stores_are_refused() -> None:
    with pytest.raises(Invalid, match=f"at most {MAX_STORES}"):
        find_stores(None, ["overlay.imagestore=" + ",".join(f"/s{number}" for number in range(MAX_STORES + 1))])


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CriolloError, match=r"storage\.conf"):
        find_stores(tmp_path / "storage.conf", [])


def test_the_environment_names_the_file() -> None:
    assert find_storage_conf({"CONTAINERS_STORAGE_CONF": "/x/y.conf"}) == Path("/x/y.conf")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text())
def test_any_text_is_stores_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "storage.conf"
    path.write_text(text, errors="surrogatepass")
    with contextlib.suppress(Invalid):
        assert isinstance(find_stores(path, [text]), tuple)
