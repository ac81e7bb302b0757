"""The choice among AppArmor profiles, and when ours is loaded: a directory stands for the kernel, a script for its parser."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid, NotFound, TimedOut, ToolFailed, Unsupported
from criollo.model.pod import ProfileType, SecurityProfile
from criollo.security import apparmor
from criollo.security.apparmor import UNCONFINED, AppArmor, Parser, parse_profiles
from criollo.security.apparmor_profile import NAME, Dialect

DEFAULT = SecurityProfile(type=ProfileType.RUNTIME_DEFAULT)
OPEN = SecurityProfile(type=ProfileType.UNCONFINED)

_LOADS = """#!/bin/sh
cat > {policy}/got
echo "$@" >> {policy}/calls
n=$(wc -l < {policy}/calls)
grep -q '^{name} ' {policy}/profiles || echo '{name} (enforce)' >> {policy}/profiles
rm -rf {policy}/policy/profiles/{name}.*
mkdir -p {policy}/policy/profiles/{name}.$n
cksum {policy}/got > {policy}/policy/profiles/{name}.$n/sha1
echo $((n + 10)) > {policy}/revision
"""


class Node:
    """A kernel's policy as files."""

    def __init__(self, place: Path) -> None:
        self.policy = place / "policy"
        self.policy.mkdir()
        (self.policy / "profiles").write_text("own (complain)\n/usr/bin/with space (enforce)\n")
        (self.policy / "revision").write_text("1\n")
        self.script, self.record = place / "parser", place / "record"
        self.write(_LOADS.format(policy=self.policy, name=NAME))

    def write(self, script: str) -> None:
        self.script.write_text(script)
        self.script.chmod(0o755)

    def apparmor(self, default: str = NAME, *, has_parser: bool = True) -> AppArmor:
        parser = Parser(str(self.script) if has_parser else "", Dialect())
        return AppArmor(default, record=self.record, parser=parser, policy=self.policy)

    @property
    def loads(self) -> int:
        calls = self.policy / "calls"
        return len(calls.read_text().splitlines()) if calls.exists() else 0

    def unload(self, name: str = NAME) -> None:
        profiles = self.policy / "profiles"
        profiles.write_text("".join(line for line in profiles.read_text().splitlines(True) if not line.startswith(f"{name} ")))
        (self.policy / "revision").write_text("99\n")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def run(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(make())


def local(name: str) -> SecurityProfile:
    return SecurityProfile(type=ProfileType.LOCALHOST, localhost_ref=name)


def test_our_profile_is_loaded_once_and_not_by_the_next_daemon(node: Node) -> None:
    run(node.apparmor().open)
    assert node.loads == 1
    assert f"profile {NAME} " in (node.policy / "got").read_text()
    run(node.apparmor().open)
    assert node.loads == 1


def test_another_version_of_our_text_is_loaded_anew(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    run(node.apparmor().open)
    monkeypatch.setattr(apparmor, "text", lambda dialect: f"profile {NAME} {{ }} # newer")
    run(node.apparmor().open)
    assert node.loads == 2
    assert "newer" in (node.policy / "got").read_text()


def test_a_profile_that_somebody_put_in_the_place_of_ours_is_replaced(node: Node) -> None:
    run(node.apparmor().open)
    (node.policy / f"policy/profiles/{NAME}.1/sha1").write_text("another one\n")
    run(node.apparmor().open)
    assert node.loads == 2


def test_our_profile_is_loaded_again_when_it_was_unloaded_and_is_wanted(node: Node) -> None:
    found = node.apparmor()
    run(found.open)
    node.unload()
    run(lambda: found.ready(OPEN))
    run(lambda: found.ready(local("own")))
    assert node.loads == 1
    run(lambda: found.ready(None))
    assert node.loads == 2
    assert found.choose(None, privileged=False) == NAME


def test_a_node_without_parser_runs_containers_without_default(node: Node) -> None:
    found = node.apparmor(has_parser=False)
    run(found.open)
    run(lambda: found.ready(None))
    assert found.choose(None, privileged=False) == ""
    assert found.choose(local("own"), privileged=False) == "own"


def test_without_parser_the_default_profile_is_refused_to_who_asks_for_it(node: Node) -> None:
    found = node.apparmor(has_parser=False)
    run(found.open)
    asked = SecurityProfile(type=ProfileType.RUNTIME_DEFAULT)
    with pytest.raises(Unsupported, match=r"RuntimeDefault.*no apparmor_parser.*install the package apparmor"):
        found.choose(asked, privileged=False)
    assert found.choose(asked, privileged=True) == ""


def test_a_parser_that_fails_or_hangs_says_what_was_loaded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.write("#!/bin/sh\necho 'syntax error, line 3' >&2\nexit 1\n")
    with pytest.raises(ToolFailed, match=rf"(?s)load AppArmor profile {NAME}.*line 3"):
        run(node.apparmor().open)
    node.write("#!/bin/sh\nsleep 1000\n")
    monkeypatch.setattr(apparmor, "LOAD_LIMIT_S", 0.1)
    with pytest.raises(TimedOut, match=NAME):
        run(node.apparmor().open)
    assert not node.record.exists()


@pytest.mark.parametrize("default", ["own", UNCONFINED])
def test_a_configured_default_is_not_loaded_by_us(node: Node, default: str) -> None:
    found = node.apparmor(default)
    run(found.open)
    assert node.loads == 0
    assert found.choose(DEFAULT, privileged=False) == default
    assert found.choose(None, privileged=False) == default


def test_a_configured_default_that_is_not_loaded_stops_the_start(node: Node) -> None:
    with pytest.raises(NotFound, match=r"AppArmor profile mine not found.*apparmor_profile.*apparmor_parser"):
        run(node.apparmor("mine").open)


def test_a_configured_default_that_was_unloaded_meanwhile_is_refused(node: Node) -> None:
    found = node.apparmor("own")
    run(found.open)
    node.unload("own")
    with pytest.raises(NotFound, match="own"):
        found.choose(None, privileged=False)


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (None, NAME),
        (DEFAULT, NAME),
        (OPEN, UNCONFINED),
        (local("own"), "own"),
        (local("/usr/bin/with space"), "/usr/bin/with space"),
    ],
)
def test_choice(node: Node, asked: SecurityProfile | None, chosen: str) -> None:
    found = node.apparmor()
    run(found.open)
    assert found.choose(asked, privileged=False) == chosen
    assert found.choose(asked, privileged=True) == ""


def test_a_profile_that_is_not_loaded_is_refused_by_name(node: Node) -> None:
    with pytest.raises(NotFound, match=r"AppArmor profile gone not found.*localhost_ref.*apparmor_parser -r"):
        node.apparmor().choose(local("gone"), privileged=False)


@pytest.mark.parametrize("name", ["", "a\nb", "a\0b", "x" * 5000])
def test_a_name_that_no_profile_has_is_refused(node: Node, name: str) -> None:
    with pytest.raises(Invalid, match="localhost_ref"):
        node.apparmor().choose(local(name), privileged=False)


def test_a_list_is_read_again_only_after_a_change(node: Node) -> None:
    found = node.apparmor()
    assert "own" in found.loaded()
    (node.policy / "profiles").write_text("other (enforce)\n")
    assert "own" in found.loaded()
    (node.policy / "revision").write_text("2\n")
    assert found.loaded() == {"other"}
    (node.policy / "revision").unlink()
    (node.policy / "profiles").write_text("third (enforce)\n")
    assert found.loaded() == {"third"}


@given(st.text())
def test_any_list_gives_names_only(listed: str) -> None:
    assert all(name and "\n" not in name for name in parse_profiles(listed))


@given(st.lists(st.text(st.characters(blacklist_characters="\n"), min_size=1), max_size=5))
def test_every_name_comes_back_from_a_list(names: list[str]) -> None:
    listed = "".join(f"{name} (enforce)\n" for name in names)
    assert list(parse_profiles(listed)) == names
