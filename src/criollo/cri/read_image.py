"""CRI messages of images as values of ours, checked; as `read` for pods."""

from msgspec.structs import replace

from criollo.cri import checks
from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Invalid
from criollo.model.container import ImageSpec
from criollo.registry.auth import Credentials, Hidden


def image_spec(spec: pb.ImageSpec, field: str = "image") -> ImageSpec:
    """How a client names an image. Raises Invalid for an empty name."""
    return ImageSpec(
        image=checks.text(f"{field}.image", spec.image, limit=1024, required=True),
        annotations=checks.pairs(f"{field}.annotations", spec.annotations),
        user_specified_image=checks.text(f"{field}.user_specified_image", spec.user_specified_image, limit=1024),
        runtime_handler=checks.name(f"{field}.runtime_handler", spec.runtime_handler, required=False),
        image_ref=checks.text(f"{field}.image_ref", spec.image_ref, limit=1024),
    )


def credentials(auth: pb.AuthConfig) -> Credentials | None:
    """What the client gives to show a registry; None if nothing. No error's message holds any of it.

    With `server_address` it is for that host alone, whatever the image's name says.
    """
    fields = ("username", "password", "auth", "identity_token", "registry_token", "server_address")
    for name in fields:
        if "\0" in getattr(auth, name) or len(getattr(auth, name)) > 1 << 20:
            raise Invalid(f"auth.{name}", Hidden(), "at most 1 MiB without NUL")
    if auth.auth and not auth.username:
        found = Credentials.of_auth(auth.auth, field="auth.auth", identity_token=auth.identity_token)
        return replace(found, server=_host(auth.server_address))
    found = Credentials(
        username=auth.username,
        password=auth.password,
        identity_token=auth.identity_token,
        registry_token=auth.registry_token,
        server=_host(auth.server_address),
    )
    return None if found.is_empty else found


def _host(address: str) -> str:
    """The host of a registry's address as references name it: `https://index.docker.io/v1/` → `docker.io`."""
    host = address.rpartition("://")[2].partition("/")[0].lower()
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host
