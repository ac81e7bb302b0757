"""The choice of a profile, and filters that are made once."""

import json
import os
from pathlib import Path

import msgspec
import pytest

from criollo.errors import CriolloError, Invalid, NotFound, Unsupported
from criollo.linux import seccomp
from criollo.model.pod import ProfileType, SecurityProfile
from criollo.security.capabilities import DEFAULT
from criollo.security.seccomp import Host, Profiles

ALLOW_ALL = json.dumps({"defaultAction": "SCMP_ACT_ALLOW"})


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "local.json").write_text(ALLOW_ALL)
    return Host("x86_64", (6, 1), root=tmp_path)


def asked(kind: ProfileType, ref: str = "") -> SecurityProfile:
    return SecurityProfile(type=kind, localhost_ref=ref)


def test_nothing_and_unconfined_are_no_profile(host: Host) -> None:
    profiles = Profiles(host)
    assert profiles.choose(None, privileged=False, handler="crun") is None
    assert profiles.choose(asked(ProfileType.UNCONFINED), privileged=False, handler="crun") is None


def test_handlers_own_default_goes_before_that_of_the_node(host: Host, tmp_path: Path) -> None:
    profiles = Profiles(host)
    profiles.set_handlers({"odd": str(tmp_path / "local.json")})
    default = asked(ProfileType.RUNTIME_DEFAULT)
    one, other = (profiles.choose(default, privileged=False, handler=name) for name in ("odd", "crun"))
    assert one is not None
    assert other is not None
    assert one is not other
    assert one.name == other.name == "RuntimeDefault"


def test_missing_profile_of_a_handler_is_an_error_and_that_of_the_node_is_not(host: Host, tmp_path: Path) -> None:
    Profiles(host, default=tmp_path / "none.json")
    with pytest.raises(NotFound, match=r"open .*none\.json: no such file or directory"):
        Profiles(host).set_handlers({"odd": str(tmp_path / "none.json")})


@pytest.mark.parametrize("privileged_profile", [True, False])
def test_privileged_has_only_the_profile_for_privileged(host: Host, tmp_path: Path, *, privileged_profile: bool) -> None:
    profiles = Profiles(host, privileged=tmp_path / "local.json" if privileged_profile else None)
    found = profiles.choose(asked(ProfileType.RUNTIME_DEFAULT), privileged=True, handler="crun")
    assert (found is not None) == privileged_profile


def test_localhost_is_read_anew_and_kept_while_it_is_the_same(host: Host, tmp_path: Path) -> None:
    profiles, wish = Profiles(host), asked(ProfileType.LOCALHOST, "local.json")
    first = profiles.choose(wish, privileged=False, handler="crun")
    assert first is profiles.choose(wish, privileged=False, handler="crun")
    (tmp_path / "local.json").write_text(ALLOW_ALL + " ")
    assert first is not profiles.choose(wish, privileged=False, handler="crun")


@pytest.mark.parametrize("ref", ["../local.json", "link.json", "none.json", "fifo", ".", "a/../../x"])
def test_relative_name_leads_to_a_file_below_its_root_or_nowhere(host: Host, tmp_path: Path, ref: str) -> None:
    (tmp_path / "link.json").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(CriolloError, match="seccomp"):
        Profiles(host).choose(asked(ProfileType.LOCALHOST, ref), privileged=False, handler="crun")


def test_kernel_without_seccomp_refuses_only_profiles_of_ones_own(host: Host) -> None:
    profiles = Profiles(host._replace(enabled=False))
    assert profiles.choose(asked(ProfileType.RUNTIME_DEFAULT), privileged=False, handler="crun") is None
    assert profiles.from_bytes(ALLOW_ALL.encode(), "registry/x") is None
    with pytest.raises(Unsupported, match="no seccomp"):
        profiles.choose(asked(ProfileType.LOCALHOST, "local.json"), privileged=False, handler="crun")


def test_document_of_an_artifact_is_parsed_once_and_named_in_errors(host: Host) -> None:
    profiles = Profiles(host)
    assert profiles.from_bytes(ALLOW_ALL.encode(), "registry/x") is profiles.from_bytes(ALLOW_ALL.encode(), "registry/x")
    with pytest.raises(Invalid, match="registry/x"):
        profiles.from_bytes(b"{", "registry/x")


@pytest.mark.skipif(not seccomp.is_available(), reason="libseccomp2 is not installed")
def test_filter_is_compiled_once_for_each_set_of_capabilities(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    compiled = seccomp.program
    monkeypatch.setattr(seccomp, "program", lambda *of: made.append(of) or compiled(*of))
    profile = Profiles(host).choose(asked(ProfileType.RUNTIME_DEFAULT), privileged=False, handler="crun")
    assert profile is not None
    first = profile.filter(DEFAULT, precompiled=True)
    assert first.program
    assert profile.filter(reversed(DEFAULT), precompiled=True) is first
    assert len(made) == 1
    profile.filter((*DEFAULT, "CAP_SYS_ADMIN"), precompiled=True)
    assert len(made) == 2
    assert profile.filter(DEFAULT).program == ""


def test_filter_with_a_listener_names_it_and_is_not_kept(host: Host) -> None:
    profile = Profiles(host).choose(asked(ProfileType.RUNTIME_DEFAULT), privileged=False, handler="crun")
    assert profile is not None
    for path in ("/run/a", "/run/b"):
        found = profile.filter(DEFAULT, precompiled=True, listener=path)
        assert msgspec.json.decode(found.document)["listenerPath"] == path
        assert found.program == ""
    assert "listenerPath" not in msgspec.json.decode(profile.filter(DEFAULT).document)
