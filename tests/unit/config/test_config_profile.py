"""The table [crio.profile]."""

import pytest

from criollo.config.load import load
from criollo.config.profile import Profile, check_profile
from criollo.errors import Invalid


def test_flags_of_crio_are_taken_by_their_names() -> None:
    wanted = {"crio.profile.profile": "true", "crio.profile.profile_port": "7000", "crio.profile.profile_cpu": "/c"}
    found = load(None, None, environ={}, overrides=wanted).settings.profile
    assert found == Profile(profile=True, profile_port=7000, profile_cpu="/c")
    assert found.is_asked_for


def test_variables_of_crio_are_taken_by_their_names() -> None:
    environ = {"ENABLE_PROFILE_UNIX_SOCKET": "true", "CONTAINER_PROFILE_MEM": "/m"}
    found = load(None, None, environ=environ, overrides={}).settings.profile
    assert found == Profile(enable_profile_unix_socket=True, profile_mem="/m")


def test_nothing_is_asked_for_by_default_nor_by_the_socket_alone() -> None:
    assert not Profile().is_asked_for
    assert not Profile(enable_profile_unix_socket=True).is_asked_for


@pytest.mark.parametrize("port", [-1, 65536])
def test_port_beyond_its_range_is_refused(port: int) -> None:
    with pytest.raises(Invalid) as refused:
        check_profile("crio.profile.profile_port", Profile(profile_port=port))
    assert refused.value.field == "crio.profile.profile_port"
