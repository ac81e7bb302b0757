"""Messages of images as values, or refused with the name of the field."""

import contextlib

import pytest
from cri_random import messages
from hypothesis import HealthCheck, given, settings

from criollo.cri import read_image
from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Invalid

slow = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def test_an_image_is_named_as_its_author_wrote_it() -> None:
    by_id = read_image.image_spec(pb.ImageSpec(image="f" * 64, user_specified_image="busybox"))
    assert (by_id.image, by_id.as_written) == ("f" * 64, "busybox")
    assert read_image.image_spec(pb.ImageSpec(image="busybox")).as_written == "busybox"


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("filter.image.image", pb.ImageSpec()),
        ("filter.image.image", pb.ImageSpec(image="x" * 1025)),
        ("filter.image.user_specified_image", pb.ImageSpec(image="x", user_specified_image="a\nb")),
        ("filter.image.runtime_handler", pb.ImageSpec(image="x", runtime_handler="../kata")),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_its_field(field: str, spec: pb.ImageSpec) -> None:
    with pytest.raises(Invalid, match=field):
        read_image.image_spec(spec, "filter.image")


def test_credentials_come_from_either_form_and_show_in_no_error() -> None:
    assert read_image.credentials(pb.AuthConfig()) is None
    plain = read_image.credentials(pb.AuthConfig(username="u", password="p"))
    encoded = read_image.credentials(pb.AuthConfig(auth="dTpw"))
    assert plain is not None
    assert encoded is not None
    assert (plain.username, plain.password) == (encoded.username, encoded.password) == ("u", "p")
    for broken in (
        pb.AuthConfig(auth="S3CRET"),
        pb.AuthConfig(username="u", password="S3CRET\0"),
        pb.AuthConfig(registry_token="S3CRET\n"),
    ):
        with pytest.raises(Invalid) as caught:
            read_image.credentials(broken)
        assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "server"),
    [
        ("", ""),
        ("https://registry.example.com/v2/", "registry.example.com"),
        ("Registry.Example.com:5000", "registry.example.com:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
    ],
)
def test_credentials_are_for_the_server_that_the_client_names(address: str, server: str) -> None:
    for auth in (pb.AuthConfig(username="u", password="p"), pb.AuthConfig(auth="dTpw")):
        auth.server_address = address
        found = read_image.credentials(auth)
        assert found is not None
        assert found.server == server


@slow
@given(messages(pb.AuthConfig))
def test_random_credentials_are_read_or_invalid(auth: pb.AuthConfig) -> None:
    with contextlib.suppress(Invalid):
        found = read_image.credentials(auth)
        assert found is None or not found.is_empty
