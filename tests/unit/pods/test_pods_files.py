"""pods.files: the text of line files, and where they are."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.model.ids import PodId
from criollo.model.pod import Dns, NamespaceMode, Namespaces, Pod, PodConfig, PodSecurity, PodState
from criollo.pods.files import locate, remove_logs, resolv_conf

POD = PodId("ab" * 32)


def pod(**modes: object) -> Pod:
    security = PodSecurity(namespaces=Namespaces(**modes))  # type: ignore[arg-type]
    config = PodConfig(name="p", uid="u", namespace="n", security=security)
    return Pod(id=POD, name="p", config=config, handler="", state=PodState.CREATING, created_ns=0)


def test_resolv_conf_has_searches_servers_and_options() -> None:
    dns = Dns(servers=("10.0.0.10", "fd00::a"), searches=("a.svc", "svc"), options=("ndots:5", "edns0"))
    assert resolv_conf(dns) == b"search a.svc svc\nnameserver 10.0.0.10\nnameserver fd00::a\noptions ndots:5 edns0\n"


def test_parts_that_are_not_given_have_no_line() -> None:
    assert resolv_conf(Dns(servers=("10.0.0.10",))) == b"nameserver 10.0.0.10\n"


@pytest.mark.parametrize("field", ["searches", "options"])
@pytest.mark.parametrize("word", ["", "a b", "a\nnameserver 6.6.6.6", "a\tb", "a\0", "#a", ";a", "ä", "a" * 256])
def test_words_that_would_become_something_else_are_refused(field: str, word: str) -> None:
    with pytest.raises(Invalid) as caught:
        resolv_conf(Dns(**{field: ("ok", word)}))
    assert caught.value.field == f"config.dns_config.{field}[1]"


@pytest.mark.parametrize("server", ["", "x", "10.0.0", "10.0.0.10 10.0.0.11", "10.0.0.10\noptions rotate", "10.0.0.10/8"])
def test_a_server_must_be_an_address(server: str) -> None:
    with pytest.raises(Invalid):
        resolv_conf(Dns(servers=(server,)))


@pytest.mark.parametrize("field", ["servers", "searches", "options"])
def test_too_many_entries_are_refused(field: str) -> None:
    with pytest.raises(Invalid):
        resolv_conf(Dns(**{field: ("10.0.0.1",) * 65}))


@given(st.lists(st.text(max_size=12), max_size=4), st.lists(st.text(max_size=12), max_size=4))
def test_one_line_per_field_whatever_the_words(searches: list[str], options: list[str]) -> None:
    try:
        text = resolv_conf(Dns(searches=tuple(searches), options=tuple(options)))
    except Invalid:
        return
    assert text.count(b"\n") == bool(searches) + bool(options)


def test_a_pod_of_its_own_has_shm_and_no_hosts(tmp_path: Path) -> None:
    files = locate(pod(), runroot=tmp_path)
    assert set(files) == {"hostname", "resolv.conf", "containerenv", "shm"}
    assert files["shm"] == str(tmp_path / "pods" / POD / "shm")


def test_host_ipc_has_the_nodes_shm(tmp_path: Path) -> None:
    assert locate(pod(ipc=NamespaceMode.NODE), runroot=tmp_path)["shm"] == "/dev/shm"


def test_host_network_has_a_hosts_file_of_its_own(tmp_path: Path) -> None:
    assert locate(pod(network=NamespaceMode.NODE), runroot=tmp_path)["hosts"].startswith(str(tmp_path))


def test_logs_of_a_pod_without_a_record_go_and_nothing_else_does(tmp_path: Path) -> None:
    for name in (POD, "kept"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.log").touch()
    for log_dir, pod_id in (("", POD), (str(tmp_path), ".."), (str(tmp_path), "kept"), (str(tmp_path), POD)):
        asyncio.run(remove_logs(log_dir, pod_id))
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
