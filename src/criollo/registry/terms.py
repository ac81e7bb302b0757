"""What a person says about TLS for one call: whether servers are verified, and by which certificates; it wins over the files.

It holds for every host that the call speaks with, mirrors and token servers too, as with podman.
"""

import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from criollo.errors import Invalid
from criollo.registry.endpoints import NO_TLS, Endpoint

if TYPE_CHECKING:
    from criollo.registry.client import Registry


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """`verify` is None where the files decide; `certificates` is a directory as those below certs.d, empty for theirs."""

    verify: bool | None = None
    certificates: str = ""

    def checked(self) -> "Terms":
        """Themselves. Raises Invalid: the directory is none, or not named by its whole path. Blocking."""
        if self.certificates and not (Path(self.certificates).is_absolute() and Path(self.certificates).is_dir()):
            raise Invalid("cert-dir", self.certificates, "a directory of this node, by its whole path")
        return self

    def applied(self, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
        """The endpoints, insecure or not as it is said."""
        found = list(endpoints)
        if self.verify is not None:
            found = [msgspec.structs.replace(each, is_insecure=not self.verify) for each in found]
        if self.certificates:
            found = [msgspec.structs.replace(each, tls=NO_TLS) for each in found]
        return found


USUAL = Terms()


@contextlib.asynccontextmanager
async def on_terms(registry: "Registry", terms: Terms) -> "AsyncIterator[Registry]":
    """The client that keeps to the terms: the same one where nothing is said, else one of its own that ends with the block."""
    if terms == USUAL:
        yield registry
        return
    own = registry.on(terms)
    try:
        yield own
    finally:
        await own.close()
