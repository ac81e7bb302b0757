"""trust.policies: which file counts, and that a change counts at once."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from criollo.errors import Denied
from criollo.oci.reference import Reference
from criollo.trust import policies as where
from criollo.trust.policies import Policies, stamp_of
from criollo.trust.policy import Policy

BUSYBOX = Reference.parse("busybox")


def write(path: Path, kind: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"default": [{"type": kind}]}))
    return path


def kind(policies: Policies, namespace: str = "") -> str:
    return policies.find(namespace).demands(BUSYBOX)[1][0].type


@pytest.fixture
def policies(tmp_path: Path) -> Policies:
    write(tmp_path / "policy.json", "insecureAcceptAnything")
    write(tmp_path / "spaces/strict.json", "reject")
    return Policies(tmp_path / "policy.json", directory=tmp_path / "spaces")


def test_the_policy_of_a_namespace_wins(policies: Policies) -> None:
    assert kind(policies) == "insecureAcceptAnything"
    assert kind(policies, "other") == "insecureAcceptAnything"
    assert kind(policies, "strict") == "reject"


def test_a_change_counts_at_once_even_of_the_same_size(policies: Policies, tmp_path: Path) -> None:
    raw = (tmp_path / "policy.json").read_bytes()
    for at in range(50):
        text = raw if at % 2 else raw.replace(b"insecureAcceptAnything", b'reject"' + b" " * 15)[: len(raw)]
        (tmp_path / "policy.json").write_bytes(text)
        if text == raw:
            assert kind(policies) == "insecureAcceptAnything"
        else:
            with pytest.raises(Denied):
                kind(policies)


def test_a_file_that_did_not_change_is_not_read_again(policies: Policies, tmp_path: Path) -> None:
    os.utime(tmp_path / "policy.json", (1, 1))
    first = policies.find()
    assert policies.find() is first
    write(tmp_path / "policy.json", "insecureAcceptAnything")
    assert policies.find() is first  # the same words are the same policy


def test_a_namespace_loses_its_policy_and_falls_back(policies: Policies, tmp_path: Path) -> None:
    assert kind(policies, "strict") == "reject"
    (tmp_path / "spaces/strict.json").unlink()
    assert kind(policies, "strict") == "insecureAcceptAnything"


def test_a_namespace_may_lose_its_policy_while_it_is_read(
    policies: Policies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Policy.load

    def too_late(path: Path) -> Policy:
        if path.name == "strict.json":
            path.unlink(missing_ok=True)
        return load(path)

    monkeypatch.setattr(Policy, "load", too_late)
    assert kind(policies, "strict") == "insecureAcceptAnything"


def test_a_change_counts_though_reading_took_long(policies: Policies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both contents are of one moment of the file's clock; between look and end of reading the processor was another's."""
    path, load = tmp_path / "policy.json", Policy.load
    stamp = stamp_of(path)
    assert stamp is not None
    clock = SimpleNamespace(now_ns=max(stamp[3:]) + 1_000_000)

    def slowly(path: Path) -> Policy:
        found = load(path)
        clock.now_ns += 1_000_000_000
        return found

    monkeypatch.setattr(where, "stamp_of", lambda _: stamp)
    monkeypatch.setattr(where, "time", SimpleNamespace(time_ns=lambda: clock.now_ns))
    monkeypatch.setattr(Policy, "load", slowly)
    assert kind(policies) == "insecureAcceptAnything"
    write(path, "reject")
    assert kind(policies) == "reject"


def test_a_policy_of_the_node_that_goes_away_denies(policies: Policies, tmp_path: Path) -> None:
    (tmp_path / "policy.json").unlink()
    with pytest.raises(Denied, match="not there any more"):
        policies.find()


def test_a_found_policy_that_goes_away_denies_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("criollo.trust.policy.SYSTEM_FILE", tmp_path / "absent")
    path = write(tmp_path / ".config/containers/policy.json", "reject")
    policies = Policies(environ={"HOME": str(tmp_path)})
    assert kind(policies) == "reject"
    path.unlink()
    with pytest.raises(Denied, match="not there any more"):
        policies.find()


@pytest.mark.parametrize("text", ["", "{}", '{"default":[]}', '{"default":[{"type":"reject"}],"x":1}'])
def test_a_policy_that_cannot_be_used_denies(policies: Policies, tmp_path: Path, text: str) -> None:
    (tmp_path / "spaces/strict.json").write_text(text)
    with pytest.raises(Denied, match=r"strict\.json"):
        policies.find("strict")
    assert kind(policies) == "insecureAcceptAnything"


@pytest.mark.parametrize("namespace", ["../policy", "a/b", "/etc", "a\0b", "x" * 300])
def test_a_namespace_leads_nowhere_else(policies: Policies, namespace: str) -> None:
    with pytest.raises(Denied):
        policies.find(namespace)


def test_a_directory_in_place_of_a_policy_denies(policies: Policies, tmp_path: Path) -> None:
    (tmp_path / "spaces/odd.json").mkdir()
    with pytest.raises(Denied):
        policies.find("odd")


def test_all_policies(policies: Policies, tmp_path: Path) -> None:
    (tmp_path / "spaces/broken.json").write_text("{")
    assert sorted(policy.demands(BUSYBOX)[1][0].type for policy in policies.all()) == ["insecureAcceptAnything", "reject"]


def test_a_node_without_a_policy_refuses_and_says_what_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("criollo.trust.policy.SYSTEM_FILE", tmp_path / "etc/policy.json")
    policies = Policies(directory=tmp_path / "spaces", environ={"HOME": str(tmp_path)})
    with pytest.raises(Denied) as caught:
        policies.find("shop")
    own = tmp_path / ".config/containers/policy.json"
    assert f"there is no signature policy {own} or {tmp_path}/etc/policy.json" in str(caught.value)
    example = str(caught.value).rpartition("write ")[2]
    write(tmp_path / "spaces/strict.json", "reject")
    assert kind(policies, "strict") == "reject"  # who has one of their own needs no other
    own.parent.mkdir(parents=True)
    own.write_text(example)
    assert kind(policies, "shop") == "insecureAcceptAnything"


def test_a_fixed_policy_is_that_of_every_namespace() -> None:
    assert kind(Policies.of(Policy.accept_all()), "x") == "insecureAcceptAnything"


def test_a_stamp_tells_absence_and_change(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert stamp_of(path) is None
    path.write_text("a")
    first = stamp_of(path)
    os.utime(path, ns=(5, 5))
    assert stamp_of(path) != first
