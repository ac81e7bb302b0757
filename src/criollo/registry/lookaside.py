"""Signatures in a lookaside: files `<base>/<repository>@<algorithm>=<hex>/signature-1`, `-2` and so on until one is missing.

They may be anybody's: whoever writes there is believed by nobody, the policy's keys decide. Only how much is read is bounded.

Source: containers/image, docs/signature-protocols.md, section "docker/distribution registries - separate storage".
"""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from criollo.aio import threads
from criollo.errors import Invalid, explain
from criollo.linux import files
from criollo.oci.digest import Digest
from criollo.oci.signature import MAX_BYTES
from criollo.registry.client import Registry

MAX_SIGNATURES: Final = 128
MAX_TOTAL_BYTES: Final = 4 << 20
LIMITS: Final = f"at most {MAX_SIGNATURES} signatures, {MAX_TOTAL_BYTES} bytes together"


async def fetch(registry: Registry, base: str, repository: str, digest: Digest) -> list[bytes]:
    """The blobs of all signatures of a manifest; `repository` is without its host.

    Raises:
        Invalid: there are too many, or too long ones.
        Unavailable, Forbidden, Unauthenticated: the server says so, or does not answer.
        HostFailed: a file cannot be read.
    """
    place = f"{base.rstrip('/')}/{repository}@{digest.algorithm}={digest.hex}"
    found: list[bytes] = []
    total = 0
    while (blob := await _fetch_one(registry, f"{place}/signature-{len(found) + 1}")) is not None:
        total += len(blob)
        if len(found) >= MAX_SIGNATURES or total > MAX_TOTAL_BYTES:
            raise Invalid(f"signatures of {digest} below {base}", "too many or too long", LIMITS)
        found.append(blob)
    return found


def store(base: str, repository: str, digest: Digest, blob: bytes) -> Path:
    """Write a signature under the next free number and return its file; blocking.

    Raises:
        Invalid: the lookaside is no directory of this host, or full.
        HostFailed, Exhausted: the kernel refused.
    """
    parts = urlsplit(base)
    if parts.scheme != "file":
        raise Invalid("lookaside", base, "file:///… to write into; set lookaside-staging in registries.d, or name a directory")
    place = Path(unquote(parts.path)) / f"{repository}@{digest.algorithm}={digest.hex}"
    with explain(f"write a signature into {place}"):
        place.mkdir(0o755, parents=True, exist_ok=True)
        fd, fresh = tempfile.mkstemp(prefix=".signature-", dir=place)
        try:
            with open(fd, "wb") as file:
                file.write(blob)
                os.fchmod(file.fileno(), 0o644)
                file.flush()
                os.fsync(file.fileno())
            for number in range(1, MAX_SIGNATURES + 1):
                with contextlib.suppress(FileExistsError):
                    os.link(fresh, place / f"signature-{number}")
                    return place / f"signature-{number}"
        finally:
            os.unlink(fresh)
    raise Invalid(f"signatures of {digest} in {place}", MAX_SIGNATURES, "fewer; remove old ones")


async def _fetch_one(registry: Registry, url: str) -> bytes | None:
    if urlsplit(url).scheme == "file":
        return await threads.files(_read, Path(unquote(urlsplit(url).path)))
    return await registry.document(url, MAX_BYTES, what="signature")


def _read(path: Path) -> bytes | None:
    with explain(f"read signature {path}"):
        try:
            return files.read_limited(path, MAX_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
