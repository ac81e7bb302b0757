"""Volumes from images: the `image` mounts of CreateContainer, found and judged before the container has a row.

    find_volumes   names → images that are here and may be used; pure bookkeeping
    show           one of them mounted beside the container's root filesystem, ready to be bound into it

An image is mounted as a tree, read-only, as overlay makes it of the layers; an artifact as its files, each at its name.
What is mounted goes with the container's root filesystem (`storage.volumes`).

Source: CRI v1, Mount.image, Mount.image_sub_path; Kubernetes KEP-4639.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from criollo.errors import CriolloError, Exhausted, Invalid, NotFound, Unsupported, VolumeFailed
from criollo.images.artifacts import blob_path, mountable
from criollo.images.context import Images
from criollo.images.resolve import find
from criollo.images.trusted import judge_local
from criollo.model.container import Mount
from criollo.model.image import Image
from criollo.specgen.request import PlannedMount
from criollo.storage.base import Mapped

MAX_VOLUMES: Final = 100  # of one container: each takes a mount of the host, whose number is limited
_IMAGE_OPTIONS: Final = ("nodev", "nosuid")
_FILE_OPTIONS: Final = ("nodev", "noexec", "nosuid")  # a file of an artifact is for reading


class Volume(NamedTuple):
    """A mount of an image, the image it means, and its place among the container's mounts."""

    number: int
    mount: Mount
    image: Image


async def find_volumes(images: Images, mounts: Sequence[Mount], *, namespace: str = "") -> dict[int, Volume]:
    """The images among a container's mounts, by their places; the policy of the pod's `namespace` judges them.

    Raises:
        VolumeFailed: one is not here, may not be used, or is an artifact where those are switched off.
        Invalid: more of them than a container may have.
    """
    wanted = sum(1 for mount in mounts if mount.image)
    if wanted > MAX_VOLUMES:
        raise Invalid("config.mounts", f"{wanted} of images", f"at most {MAX_VOLUMES}")
    return {at: await _find(images, mount, at, namespace=namespace) for at, mount in enumerate(mounts) if mount.image}


def reported(mounts: Sequence[Mount], volumes: dict[int, Volume]) -> tuple[Mount, ...]:
    """The mounts as the container's status shows them: with the images that were found."""
    return tuple(
        msgspec.structs.replace(mount, image_ref=_reference(volumes[at].image)) if at in volumes else mount
        for at, mount in enumerate(mounts)
    )


async def show(
    images: Images, container_id: str, volume: Volume, mapped: Mapped | None, *, label: str = ""
) -> list[PlannedMount]:
    """Mount the volume for a container whose root filesystem is made; returns what is to be bound into it.

    Raises:
        VolumeFailed: the sub path does not exist, or the kernel refused.
    """
    with _told(volume.mount):
        if volume.image.is_artifact:
            return await _show_files(images, container_id, volume, label=label)
        source = await images.roots.mount_volume(
            container_id, volume.number, volume.image.layers, sub_path=_sub_path(volume.mount), mapped=mapped, label=label
        )
        return [PlannedMount(mount=_with(volume.mount, "", _IMAGE_OPTIONS), source=str(source))]


async def _find(images: Images, mount: Mount, at: int, *, namespace: str) -> Volume:
    with _told(mount):
        image = find(images, mount.image)
        if image is None:
            raise NotFound("image", mount.image, "pull it first")
        if image.is_artifact and not images.mounts_artifacts:
            raise Unsupported("it is an OCI artifact, and oci_artifact_mount_support is off in the configuration of this node")
        await judge_local(images, image, mount.image_spec, namespace=namespace)
        if image.is_artifact:
            mountable(image, mount.image_sub_path)
        return Volume(at, mount, image)


async def _show_files(images: Images, container_id: str, volume: Volume, *, label: str) -> list[PlannedMount]:
    """One bind per file. Their owner is the host's root in every user namespace: everybody may read them."""
    blobs = mountable(volume.image, volume.mount.image_sub_path)
    sources = [blob_path(images, blob.digest) for blob in blobs]
    shown = await images.roots.show_files(container_id, volume.number, sources, label=label)
    return [
        PlannedMount(mount=_with(volume.mount, blob.name, _FILE_OPTIONS), source=str(source))
        for blob, source in zip(blobs, shown, strict=True)
    ]


def _with(mount: Mount, name: str, options: Sequence[str]) -> Mount:
    """The mount of one thing of a volume; its owners are mapped already, where they are."""
    return msgspec.structs.replace(
        mount,
        container_path=f"{mount.container_path.rstrip('/')}/{name}" if name else mount.container_path,
        options=tuple(dict.fromkeys((*mount.options, *options))),
        uid_mappings=(),
        gid_mappings=(),
    )


def _sub_path(mount: Mount) -> str:
    return "/".join(part for part in mount.image_sub_path.split("/") if part not in ("", "."))


def _reference(image: Image) -> str:
    return image.digests[0] if image.digests else image.id


@contextlib.contextmanager
def _told(mount: Mount) -> Iterator[None]:
    """Every failure in the words that kubelet knows for volumes; a full disk stays one, since it may pass."""
    try:
        yield
    except Exhausted:
        raise
    except CriolloError as error:
        name = mount.image_spec.as_written
        raise VolumeFailed(f"cannot mount image {name} at {mount.container_path}: {error}") from error
