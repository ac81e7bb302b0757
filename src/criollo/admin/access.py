"""How a registry is to be spoken with, as the bodies of pulls and pushes say it: as whom, and on which terms."""

import msgspec

from criollo.aio import threads
from criollo.oci.platform import Platform
from criollo.registry.auth import Credentials
from criollo.registry.terms import Terms


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """`tls_verify` null: as the files of this node say; `cert_dir` is a directory of this node."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    tls_verify: bool | None = None
    cert_dir: str = ""

    def __repr__(self) -> str:
        return "Access(***)"

    def credentials(self) -> Credentials | None:
        """What to show; None: what this node has. Raises Invalid."""
        found = Credentials(
            username=self.username,
            password=self.password,
            identity_token=self.identity_token,
            registry_token=self.registry_token,
        )
        return None if found.is_empty else found

    async def terms(self) -> Terms:
        """Raises Invalid: the directory is none."""
        return await threads.files(Terms(verify=self.tls_verify, certificates=self.cert_dir).checked)


def platform_of(text: str) -> Platform | None:
    """`os/architecture[/variant]`; None for nothing. Raises Invalid."""
    return Platform.parse(text, field="platform") if text else None
