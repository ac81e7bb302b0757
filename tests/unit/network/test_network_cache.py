"""network.cache: what ADD was done with."""

import base64
import json
import os
from pathlib import Path
from unittest import mock

import pytest

from criollo.network.cache import KIND, Cache, Entry

POD = "a" * 64


def entry(**more: object) -> Entry:
    fields = {
        "kind": KIND,
        "container_id": POD,
        "config": b'{"name": "net"}',
        "if_name": "eth0",
        "network_name": "net",
        "netns": "/run/netns/x",
        "cni_args": (("A", "b"),),
        "capability_args": {"portMappings": [{"hostPort": 1}]},
        "result": {"ips": []},
        "runtime": "criollo",
        **more,
    }
    return Entry(**fields)  # type: ignore[arg-type]


def test_what_was_written_is_found(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "criollo")
    cache.write(entry())
    assert [found for _, found in cache.find(POD)] == [entry()]


def test_layout_is_that_of_libcni(tmp_path: Path) -> None:
    Cache(tmp_path, "criollo").write(entry())
    document = json.loads((tmp_path / "results" / f"net-{POD}-eth0").read_bytes())
    assert base64.b64decode(document["config"]) == b'{"name": "net"}'
    del document["config"]
    assert document == {
        "kind": "cniCacheV1",
        "containerId": POD,
        "ifName": "eth0",
        "networkName": "net",
        "netns": "/run/netns/x",
        "cniArgs": [["A", "b"]],
        "capabilityArgs": {"portMappings": [{"hostPort": 1}]},
        "result": {"ips": []},
        "runtime": "criollo",
    }


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    Cache(tmp_path, "criollo").write(entry())
    assert (tmp_path / "results").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "results" / entry().file_name).stat().st_mode & 0o777 == 0o600


def test_other_pods_are_not_found(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "criollo")
    cache.write(entry(container_id="b" * 64))
    assert cache.find(POD) == []


def test_all_networks_of_a_pod_are_found(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "criollo")
    cache.write(entry())
    cache.write(entry(network_name="other"))
    assert len(cache.find(POD)) == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\0" * 100, b"[]", b'{"kind": "cniCacheV2"}', b"\xff", b"[" * 100_000],
)
def test_a_damaged_file_is_found_without_entry(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / f"net-{POD}-eth0").write_bytes(content)
    assert [found for _, found in Cache(tmp_path, "criollo").find(POD)] == [None]


def test_an_entry_under_another_name_is_not_believed(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "criollo")
    cache.write(entry())
    (tmp_path / "results" / entry().file_name).rename(tmp_path / "results" / f"net-{'b' * 64}-eth0")
    assert cache.entries() == []


def test_an_entry_of_libcni_is_read(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    document = {"kind": KIND, "containerId": POD, "config": "e30=", "ifName": "eth0", "networkName": "net"}
    (tmp_path / "results" / f"net-{POD}-eth0").write_text(json.dumps({**document, "result": {"ips": []}, "new": 1}))
    (found,) = Cache(tmp_path, "criollo").entries()
    assert (found.config, found.runtime) == (b"{}", "")


def unfinished(root: Path, **more: object) -> str:
    """The name of what is left by a writer that ends, and cannot clean up, before the entry has its name."""
    cache = Cache(root, "criollo")
    with pytest.MonkeyPatch.context() as patch:
        for verb in ("rename", "unlink"):
            patch.setattr(os, verb, mock.Mock(side_effect=PermissionError))
        with pytest.raises(PermissionError):
            cache.write(entry(**more))
    (name,) = os.listdir(root / "results")
    return name


def test_an_entry_that_was_never_finished_is_found_to_be_removed(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "criollo")
    name = unfinished(tmp_path, network_name="my-net")
    assert cache.find(POD) == [(tmp_path / "results" / name, None)]
    assert (cache.unfinished(), cache.entries(), cache.find("b" * 64)) == ([(POD, name)], [], [])
    cache.remove(name)
    assert os.listdir(tmp_path / "results") == []


@pytest.mark.parametrize("name", [f".net-{POD}-eth0", f".net-{POD}-eth1.01234567", ".01234567", f".{POD}.0123456", ".swp"])
def test_files_of_others_are_not_unfinished_entries(tmp_path: Path, name: str) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / name).touch()
    cache = Cache(tmp_path, "criollo")
    assert (cache.unfinished(), cache.find(POD), cache.entries()) == ([], [], [])


def test_an_entry_is_written_again_when_it_was_swept_as_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path, "criollo")
    cache.write(entry(result=None))
    rename = os.rename

    def swept_before(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        os.unlink(source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", swept_before)
    cache.write(entry())
    assert [found for _, found in cache.find(POD)] == [entry()]


def test_removing_twice_is_fine(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "criollo")
    cache.write(entry())
    cache.remove(entry().file_name)
    cache.remove(entry().file_name)
    assert cache.entries() == []


def test_no_directory_is_no_entries(tmp_path: Path) -> None:
    assert Cache(tmp_path / "none", "criollo").entries() == []
