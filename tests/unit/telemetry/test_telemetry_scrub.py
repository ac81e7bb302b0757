"""Secrets that programs write do not stay in their words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.telemetry.scrub import scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "GET https://user:s3cr3t@registry/v2",
        "GET https://registry/token?account=me&password=s3cr3t",
        "Authorization: Bearer s3cr3ts3cr3t",
        "authorization: Basic s3cr3ts3cr3t==",
        "password=s3cr3t",
        "DB_PASSWORD: s3cr3t",
        '{"identitytoken": "s3cr3t"}',
        "AWS_SECRET_ACCESS_KEY=s3cr3t",
        "api_key='s3cr3t'",
        "-----BEGIN EC PRIVATE KEY-----\ns3cr3t\n-----END",
    ],
)
def test_secret_goes(text: str) -> None:
    assert "s3cr3t" not in scrubbed(text)
    assert "***" in scrubbed(text)


@pytest.mark.parametrize(
    "text",
    [
        "crun: executable file `/no/such` not found in $PATH: No such file or directory",
        "plugin type=bridge failed (add): 10.0.0.1 is already allocated at key: value",
        "https://registry.example/v2/library/busybox/manifests/latest",
    ],
)
def test_rest_stays(text: str) -> None:
    assert scrubbed(text) == text


@given(st.text(max_size=4000))
def test_any_text_is_taken(text: str) -> None:
    assert isinstance(scrubbed(text), str)


@pytest.mark.parametrize("part", ["://", "token=", "bearer ", "a://b?c", "password:", "-----BEGIN ", "token"])
def test_repetition_does_not_hang_it(part: str) -> None:
    assert len(scrubbed(part * (4000 // len(part)))) <= 8000
