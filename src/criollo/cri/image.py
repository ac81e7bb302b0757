"""ImageService: per call read → domain → write, as `runtime`."""

from collections.abc import AsyncGenerator, Mapping

from criollo.cri import query, read_image, write
from criollo.cri.calls import Handler, StreamHandler, after
from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Invalid
from criollo.images import status
from criollo.images.context import Images
from criollo.images.pull import pull_image
from criollo.images.remove import remove_image
from criollo.model.image import Image
from criollo.oci.image_spec import decode_config
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


class ImageService:
    """Answers runtime.v1.ImageService. `calls` is what a Server takes."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def calls(self) -> Mapping[str, Handler | StreamHandler]:
        """The handlers by method name. Where other tools' stores are read, List and Status look at them first."""
        foreign = self._images.foreign
        return {
            "ListImages": after(foreign.refresh, self.list_images) if foreign.stores else self.list_images,
            "StreamImages": self.stream_images,
            "ImageStatus": after(foreign.refresh, self.image_status) if foreign.stores else self.image_status,
            "PullImage": self.pull_image,
            "RemoveImage": self.remove_image,
            "ImageFsInfo": self.image_fs_info,
        }

    def list_images(self, request: pb.ListImagesRequest) -> pb.ListImagesResponse:
        return pb.ListImagesResponse(images=self._listed(request.filter))

    async def stream_images(self, request: pb.StreamImagesRequest) -> AsyncGenerator[pb.StreamImagesResponse, None]:
        await self._images.foreign.refresh()
        for batch in query.batches(self._listed(request.filter)):
            yield pb.StreamImagesResponse(images=batch)

    def image_status(self, request: pb.ImageStatusRequest) -> pb.ImageStatusResponse:
        """An image that is not here is an answer without one, not an error."""
        found = status.find_image(self._images, read_image.image_spec(request.image).image)
        if found is None:
            return pb.ImageStatusResponse()
        info = status.verbose(self._images, found) if request.verbose else None
        return pb.ImageStatusResponse(image=self._written(found), info=info)

    async def pull_image(self, request: pb.PullImageRequest) -> pb.PullImageResponse:
        """Answers the image's id: kubelet compares it to decide whether a pod may use what another pulled."""
        image_id = await pull_image(
            self._images,
            read_image.image_spec(request.image),
            read_image.credentials(request.auth),
            namespace=request.sandbox_config.metadata.namespace,
        )
        return pb.PullImageResponse(image_ref=image_id)

    async def remove_image(self, request: pb.RemoveImageRequest) -> pb.RemoveImageResponse:
        await remove_image(self._images, read_image.image_spec(request.image).image)
        return pb.RemoveImageResponse()

    async def image_fs_info(self, request: pb.ImageFsInfoRequest) -> pb.ImageFsInfoResponse:
        at_ns = self._images.clock()
        layers, containers = await status.fs_usage(self._images), await status.container_usage(self._images)
        return pb.ImageFsInfoResponse(
            image_filesystems=[write.fs_usage(layers.mountpoint, layers.used_bytes, layers.inodes_used, at_ns=at_ns)],
            container_filesystems=[
                write.fs_usage(containers.mountpoint, containers.used_bytes, containers.inodes_used, at_ns=at_ns)
            ],
        )

    def _listed(self, wanted: pb.ImageFilter) -> list[pb.Image]:
        if not wanted.image.image:
            return [self._written(image) for image in status.list_images(self._images)]
        found = status.find_image(self._images, read_image.image_spec(wanted.image, "filter.image").image)
        return [self._written(found)] if found else []

    def _written(self, image: Image) -> pb.Image:
        return write.image(image, user=_user(image), pinned=status.is_pinned(self._images, image))


def _user(image: Image) -> str:
    """Who it runs as; nobody where its config cannot be read any more, so that it does not take all others off the list."""
    try:
        return "" if image.is_artifact else decode_config(image.config).config.user
    except Invalid as error:
        log.debug("config of an image is unreadable", image=image.id, error=error)
        return ""
