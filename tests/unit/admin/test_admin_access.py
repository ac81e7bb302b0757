"""How bodies say as whom and on which terms a registry is asked."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from criollo.admin.access import Access, platform_of
from criollo.aio import threads
from criollo.errors import CriolloError, Invalid
from criollo.oci.platform import Platform
from criollo.registry.terms import USUAL, Terms


def terms(access: Access) -> Terms:
    async def main() -> Terms:
        try:
            return await access.terms()
        finally:
            threads.close()

    return asyncio.run(main())


def test_nothing_said_is_what_the_node_has() -> None:
    access = msgspec.json.decode(b"{}", type=Access)
    assert access.credentials() is None
    assert terms(access) == USUAL


def test_what_is_said_is_passed_on_and_not_shown(tmp_path: Path) -> None:
    access = Access(username="me", password="secret", tls_verify=False, cert_dir=str(tmp_path))
    shown = access.credentials()
    assert shown is not None
    assert (shown.username, shown.password) == ("me", "secret")
    assert terms(access) == Terms(verify=False, certificates=str(tmp_path))
    assert "secret" not in repr(access)


@pytest.mark.parametrize("directory", ["relative", "/nowhere/at/all", "/etc/hostname"])
def test_a_directory_that_is_none_is_refused(directory: str) -> None:
    with pytest.raises(Invalid, match="cert-dir"):
        terms(Access(cert_dir=directory))


def test_a_token_that_would_break_a_header_is_refused() -> None:
    with pytest.raises(CriolloError):
        Access(registry_token="a\nb").credentials()


def test_platforms() -> None:
    assert platform_of("") is None
    assert platform_of("linux/arm64/v8") == Platform.normal("linux", "arm64", "v8")
    for text in ("linux", "linux/", "a/b/c/d", "/amd64"):
        with pytest.raises(Invalid, match="platform"):
            platform_of(text)
