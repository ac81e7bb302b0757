"""What annotations ask of seccomp, where the handler allows them: a profile that is an OCI artifact, and the notifier.

    seccomp-profile.crio.io/CONTAINER      of the pod: the profile of one container, a reference to an artifact
    seccomp-profile.crio.io/POD            of the pod: of all its containers
    seccomp-profile.crio.io[/CONTAINER|/POD]   of the image: of what runs it
    seccomp-notifier-action.crio.io        of the pod: `stop`, or anything else to be told only

The first that is there counts. The field of the security context goes before: an artifact is for who asks for nothing, or for
Unconfined; it can only take away. The profile is the artifact's first blob. One that is here by that name is used, else it
is pulled as images are; the signature policy judges it at each create.
"""

from collections.abc import Mapping
from typing import Final

from criollo.aio import threads
from criollo.containers.context import Containers
from criollo.errors import Damaged, Invalid, NotFound, explain
from criollo.images import resolve
from criollo.images.artifacts import blob_path
from criollo.images.collect import leased
from criollo.images.pull import pull_image
from criollo.images.trusted import judge_local
from criollo.linux.files import read_limited
from criollo.model.container import ContainerConfig, ImageSpec
from criollo.model.image import Image
from criollo.model.pod import Pod, ProfileType
from criollo.oci.digest import Digest
from criollo.oci.image_spec import Manifest, decode_manifest
from criollo.security.seccomp import Profile
from criollo.security.seccomp_profile import MAX_FILE_BYTES
from criollo.specgen.asked import find
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

PROFILE: Final = "seccomp-profile.crio.io"
NOTIFIER: Final = "seccomp-notifier-action.crio.io"
STOP, TELL = "stop", "tell"


def notifier_of(containers: Containers, pod: Pod) -> str:
    """The notifier's action for containers of a pod: STOP, TELL, or empty for none."""
    value = find(pod.config.annotations, NOTIFIER, containers.defaults_for(pod).allowed_annotations)
    return "" if value is None else STOP if value == STOP else TELL


async def artifact_profile(containers: Containers, image: Image, pod: Pod, config: ContainerConfig) -> Profile | None:
    """The profile that annotations of pod or image name; None without one. May pull.

    Raises:
        NotFound, Denied, Unavailable, …: the artifact cannot be had, or may not be used.
        Invalid, Unsupported: it is no profile; the message has the field.
    """
    security = config.security
    if security.privileged or (security.seccomp is not None and security.seccomp.type is not ProfileType.UNCONFINED):
        return None
    allowed = containers.defaults_for(pod).allowed_annotations
    if not any("seccomp-profile" in each for each in allowed):
        return None
    ref = _of_pod(pod.config.annotations, config.name, allowed) or _of_image(image, config.name, allowed)
    if not ref:
        return None
    raw = await _fetch(containers, ref, namespace=pod.config.namespace)
    log.info("Retrieved OCI artifact seccomp profile", artifact=ref, bytes=len(raw), container=config.name)
    return await threads.files(containers.seccomp.from_bytes, raw, ref)


def _of_pod(annotations: Mapping[str, str], container: str, allowed: tuple[str, ...]) -> str:
    for of, message in (
        (container, "Found container specific seccomp profile annotation"),
        ("POD", "Found pod specific seccomp profile annotation"),
    ):
        if found := find(annotations, PROFILE, allowed, of=of):
            log.info(message, artifact=found, container=container)
            return found
    return ""


def _of_image(image: Image, container: str, allowed: tuple[str, ...]) -> str:
    manifest = decode_manifest(image.manifest)
    if isinstance(manifest, Manifest):
        for of in ("", container, "POD"):
            if found := find(manifest.annotations, PROFILE, allowed, of=of):
                log.info("Found image specific seccomp profile annotation", artifact=found, container=container, of=of)
                return found
    return ""


async def _fetch(containers: Containers, ref: str, *, namespace: str) -> bytes:
    images, spec = containers.images, ImageSpec(image=ref)
    found = resolve.find(images, ref)
    if found is None:
        found = images.rows.get(await pull_image(images, spec, namespace=namespace))
        if found is None:
            raise NotFound("artifact", ref, "it was removed right after the pull")
    await judge_local(images, found, spec, namespace=namespace)
    manifest = decode_manifest(found.manifest, artifacts=True)
    if not found.is_artifact or not isinstance(manifest, Manifest) or not manifest.layers:
        raise Invalid(f"annotation {PROFILE}", ref, "an OCI artifact with a seccomp profile")
    blob = manifest.layers[0]
    with leased(images, found.layers), explain(f"read seccomp profile {ref}"):
        raw = await threads.files(read_limited, blob_path(images, blob.digest), MAX_FILE_BYTES)
    if Digest.of(raw) != blob.digest:
        raise Damaged(f"cannot use seccomp profile {ref}: its blob {blob.digest} is damaged on this disk; pull it again")
    return raw
