"""Where the labels for containers are found in a node's files."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid, Unsupported
from criollo.linux import selinux
from criollo.security import selinux_policy
from criollo.security.selinux import Labeller, parse_contexts
from criollo.security.selinux_policy import find_contexts, open_labeller, policy_type, read_contexts

LINES = 'process = "u:r:{0}:s0"\nfile = "u:o:f:s0"\n'


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_the_file_of_the_policy_in_use(tmp_path: Path) -> None:
    put(tmp_path, "etc/selinux/config", "# SELINUXTYPE=other\nSELINUX=enforcing\nSELINUXTYPE=default\n")
    put(tmp_path, "etc/selinux/default/contexts/lxc_contexts", LINES.format("debian_t"))
    put(tmp_path, "etc/selinux/targeted/contexts/lxc_contexts", LINES.format("other_t"))
    assert read_contexts(tmp_path).process.type == "debian_t"


def test_the_file_for_containers_goes_before_the_policys_own(tmp_path: Path) -> None:
    put(tmp_path, "etc/selinux/targeted/contexts/lxc_contexts", LINES.format("other_t"))
    put(tmp_path, "usr/share/containers/selinux/contexts", LINES.format("ours_t"))
    assert read_contexts(tmp_path).process.type == "ours_t"


def test_a_policy_that_knows_no_containers_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"lxc_contexts is not there.*selinux = false"):
        read_contexts(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    put(tmp_path, "etc/selinux/targeted/contexts/lxc_contexts", "process = 5")
    with pytest.raises(Invalid, match="targeted/contexts/lxc_contexts"):
        read_contexts(tmp_path)


@pytest.mark.parametrize(
    ("config", "found"),
    [("", "targeted"), ("SELINUXTYPE = mls", "mls"), ("SELINUXTYPE=../../x", "targeted"), ("SELINUXTYPE=..", "targeted")],
)
def test_the_type_is_the_name_of_a_directory(config: str, found: str) -> None:
    assert policy_type(config) == found


@given(st.text())
def test_any_configuration_names_a_directory(config: str) -> None:
    found = policy_type(config)
    assert found
    assert "/" not in found


def opened(driver: str = "overlay") -> Labeller | None:
    return asyncio.run(open_labeller(lambda: (), host_network_unconfined=True, storage_driver=driver, store=Path("/")))


def test_a_node_without_selinux_gets_no_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selinux, "is_enabled", lambda: False)
    assert opened() is None
    assert opened("vfs") is None


def test_only_overlay_can_label(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = parse_contexts(LINES.format("t"))
    monkeypatch.setattr(selinux_policy, "find_contexts", lambda: contexts)
    assert opened() is not None
    with pytest.raises(Unsupported, match=r"storage driver vfs.*overlay.*selinux = false"):
        opened("vfs")


def test_a_policy_that_does_not_know_its_own_labels_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "usr/share/containers/selinux/contexts", LINES.format("container_t"))
    monkeypatch.setattr(selinux, "is_enabled", lambda: True)
    asked: list[str] = []
    monkeypatch.setattr(selinux, "check", lambda label, field: asked.append(label))
    assert find_contexts(tmp_path) == parse_contexts(LINES.format("container_t"))
    assert asked == ["u:r:container_t:s0", "u:o:f:s0"]

    def refuse(label: str, field: str) -> None:
        raise Invalid(field, label, "another one")

    monkeypatch.setattr(selinux, "check", refuse)
    with pytest.raises(Unsupported, match=r"does not know u:r:container_t:s0.*container-selinux.*selinux = false"):
        find_contexts(tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, ...]]:
    """A policy that refuses what stands here, by the label of the store."""
    refused: dict[str, tuple[str, ...]] = {}
    monkeypatch.setattr(selinux, "label_of", lambda fd: next(iter(refused)))
    monkeypatch.setattr(selinux, "missing", lambda source, target, wanted: refused[target])
    monkeypatch.setattr(selinux, "is_enforcing", lambda: True)
    return refused


def test_a_store_that_containers_cannot_read_is_told_with_its_label_and_a_remedy(
    tmp_path: Path, asked: dict[str, tuple[str, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    asked["u:o:var_lib_t:s0"] = ("execute", "map")
    selinux_policy.tell_unreadable(parse_contexts(LINES.format("container_t")), tmp_path)
    (record,) = caplog.records
    assert record.getMessage().startswith("containers cannot run what is in the store")
    fields = record.__dict__["fields"]
    assert (fields["label"], fields["lacking"], fields["enforcing"]) == ("u:o:var_lib_t:s0", ("execute", "map"), True)
    assert fields["remedy"].startswith(f"semanage fcontext -a -e /var/lib/containers/storage {tmp_path.parent};")


def test_a_store_that_can_be_read_is_no_matter(
    tmp_path: Path, asked: dict[str, tuple[str, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    asked["u:o:container_ro_file_t:s0"] = ()
    selinux_policy.tell_unreadable(parse_contexts(LINES.format("container_t")), tmp_path)
    assert caplog.records == []


def test_a_kernel_that_does_not_say_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    selinux_policy.tell_unreadable(parse_contexts(LINES.format("container_t")), tmp_path / "none")
    assert "is not known" in caplog.text
