"""Programs that hold credentials: `docker-credential-X get`, a server's name in, JSON out.

They are the administrator's: the name is one word, found on the daemon's own PATH, and no bytes of a registry or a tenant
reach them but the host's name. What they print is never shown: it may be the secret.

Source: the protocol of docker-credential-helpers.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from criollo.aio import process
from criollo.errors import CriolloError, Invalid, ToolFailed, Unauthenticated
from criollo.oci import document
from criollo.registry.auth import Credentials

PREFIX: Final = "docker-credential-"
LIMIT_S: Final = 30
_MAX_BYTES: Final = 1 << 20
_NOT_FOUND: Final = b"credentials not found"
_TOKEN_USER: Final = "<token>"  # noqa: S105 - not a secret: it says that the secret is an identity token


class _Answer(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    username: str = ""
    secret: str = ""

    def __repr__(self) -> str:
        return "_Answer(***)"


async def get(program: str, server: str, *, environ: Mapping[str, str], limit_s: float = LIMIT_S) -> Credentials | None:
    """What `docker-credential-<program>` has for a server; None if it has nothing.

    Raises:
        Unauthenticated: it cannot be run, fails, takes too long or prints something else; none of that is shown.
    """
    name = PREFIX + program
    what = f"cannot get credentials for {server} from {name}"
    try:
        ended = await process.attempt(
            process.Program([name, "get"], env={**process.MINIMAL_ENV, **environ}),
            what=what,
            timeout_s=limit_s,
            stdin=server.encode() + b"\n",
            limit_bytes=_MAX_BYTES,
        )
    except CriolloError as error:
        cause = "it is not there, or took too long" if not isinstance(error, ToolFailed) else "it failed"
        raise Unauthenticated(f"{what}: {cause}; run it by hand to see why") from None
    if ended.status != 0:
        if _NOT_FOUND in ended.stdout[:4096]:
            return None
        raise Unauthenticated(f"{what}: it ended with status {ended.status}; run it by hand to see why")
    try:
        table = document.parse_object(ended.stdout, what=name, limit_bytes=_MAX_BYTES)
        answer = document.convert(document.without_nulls(table), _Answer, what=name)
        if answer.username == _TOKEN_USER:
            found = Credentials(identity_token=answer.secret)
        else:
            found = Credentials(username=answer.username, password=answer.secret)
    except Invalid:
        raise Unauthenticated(f"{what}: what it prints is not the JSON of a credential program") from None
    return None if found.is_empty else found
