"""Images of other tools' stores among our own: found by the same names, run from where they lie, never removed by us.

What a store holds is looked at again when its records have changed: by List, Status and Create, which wait for that look,
though not for long, since a store may be on a network file system (`storage.foreign_look`). For one that did not answer they do
not wait again until it has answered. An image of ours hides one of a store with the same name or id; among stores the first
wins. Trees of layers are not checked by digest (`storage.foreign` says what is).
"""

import asyncio
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from criollo.aio.together import together
from criollo.errors import CriolloError, Damaged, Denied, HostFailed, Invalid, NotFound, TimedOut, Unsupported
from criollo.model.ids import ImageId, short
from criollo.model.image import Image
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.storage.layers import Layers
from criollo.telemetry.log import get_logger
from criollo.trust.judge import Evidence
from criollo.workers.pool import Workers

if TYPE_CHECKING:
    from criollo.storage.foreign import ForeignImage, ImageRecord, Stamp

log = get_logger(__name__)

AGAIN_S: Final = 10.0  # a store with something wrong in it is read again so often at most
PATIENCE_S: Final = 5.0  # how long a verb waits for a look at the stores


class _Store:
    """One store: what it held when it was looked at last."""

    def __init__(self, root: Path) -> None:
        self.given = root
        self.root = root  # free of links, once it was seen
        self.stamp: Stamp | None = None
        self.again_at = math.inf  # monotonic seconds: what was wrong may be mended without a change of the records
        self.known: dict[ImageRecord, ForeignImage] = {}
        self.images: tuple[Image, ...] = ()
        self.told: set[tuple[str, str]] = set()
        self.asked, self.answered = 0, 0
        self.wanted = asyncio.Event()
        self.hangs = False  # its file system did not answer the last look


class ForeignImages:
    """The images of `stores`; their layers are made known to `layers`. `follow` must run for `refresh` to return at once."""

    def __init__(self, stores: Sequence[Path], layers: Layers, workers: Workers) -> None:
        self._stores = [_Store(root) for root in stores]
        self._layers, self._workers = layers, workers
        self._by_id: dict[str, Image] = {}
        self._by_name: dict[str, Image] = {}
        self._ids: dict[str, str] = {}  # of layers in their stores, by our names
        self._signatures: dict[tuple[str, str], tuple[bytes, ...]] = {}  # by store and digest of the manifest
        self._news = asyncio.Condition()

    @property
    def stores(self) -> tuple[Path, ...]:
        return tuple(store.given for store in self._stores)

    def get(self, image_id: str) -> Image | None:
        return self._by_id.get(image_id)

    def by_reference(self, name: str) -> Image | None:
        """`name` in full, as `ImageRows.by_reference`."""
        return self._by_name.get(name)

    def evidence(self, image: Image) -> Evidence:
        """The signatures that its store keeps of an image, unverified."""
        return Evidence(Digest(image.manifest_digest), self._signatures.get((image.store, image.manifest_digest), ()))

    def by_prefix(self, prefix: str) -> list[Image]:
        return [image for image_id, image in self._by_id.items() if image_id.startswith(prefix)]

    def beside(self, own: Iterable[Image]) -> list[Image]:
        """Our own images and those of the stores. One that is in both is listed once, as ours, with all its names."""
        listed = {image.id: image for image in own}
        if not self._by_id:
            return list(listed.values())
        taken = {name for image in listed.values() for name in (*image.names, *image.digests)}
        for image in self._by_id.values():
            names = tuple(name for name in image.names if name not in taken)
            digests = tuple(name for name in image.digests if name not in taken)
            taken.update(names, digests)
            mine = listed.get(image.id)
            if mine is None:
                listed[image.id] = msgspec.structs.replace(image, names=names, digests=digests)
            else:
                merged = msgspec.structs.replace(mine, names=(*mine.names, *names), digests=(*mine.digests, *digests))
                listed[image.id] = merged
        return list(listed.values())

    async def refresh(self) -> None:
        """See what the stores hold now. Where that takes long, what was seen last counts."""
        if not self._stores:
            return
        for store in self._stores:
            store.asked += 1
            store.wanted.set()
        late = [(store, store.asked) for store in self._stores]
        try:
            async with asyncio.timeout(PATIENCE_S), self._news:
                await self._news.wait_for(lambda: all(store.hangs or store.answered >= mine for store, mine in late))
        except TimeoutError:
            slow = [str(store.given) for store, mine in late if not store.hangs and store.answered < mine]
            log.warning("image stores are slow; what was seen of them last counts", stores=slow, limit_s=PATIENCE_S)

    async def follow(self) -> None:
        """Look whenever `refresh` asks; never ends. For one background task."""
        await together(self._follow(store) for store in self._stores)

    async def _follow(self, store: _Store) -> None:
        while True:
            await store.wanted.wait()
            store.wanted.clear()
            asked = store.asked
            await self._look(store)
            async with self._news:
                store.answered = asked
                self._news.notify_all()

    async def _look(self, store: _Store) -> None:
        """Read a store that has changed. One that cannot be used has no images; the log says why, once."""
        from criollo.storage import foreign_look  # here and below: few nodes have stores of other tools

        try:
            place = await foreign_look.locate(self._workers, store.given)
            if place != foreign_look.StorePlace(store.root, store.stamp or ()) or time.monotonic() >= store.again_at:
                store.root, store.stamp = place.root, place.stamp
                await self._read(store)
                self._index()
        except TimedOut as error:
            if not store.hangs:
                log.warning("image store hangs; what was seen of it last counts", store=store.given, error=error)
            store.hangs, store.stamp = True, None
        else:
            if store.hangs:
                log.info("image store answers again", store=store.given)
            store.hangs = False

    async def check(self, *images: Image) -> None:
        """See that the images' layers are still there; those of ours pass.

        Raises:
            Damaged: they are not, or the store became unusable.
            TimedOut: its file system does not answer.
        """
        for image in images:
            if not image.store:
                continue
            from criollo.storage import foreign_look

            try:
                await foreign_look.check_trees(Path(image.store), [self._ids[name] for name in image.layers])
            except TimedOut as error:
                raise TimedOut(
                    f"cannot use image {short(image.id)}: the store {image.store} of another tool, where its layers are, does "
                    f"not answer ({error}); mend the file system below it, or pull the image"
                ) from error
            except CriolloError as error:
                raise Damaged(
                    f"cannot use image {short(image.id)}: it is in the store {image.store} of another tool, and {error}; "
                    "pull the image, or put it there again"
                ) from error

    async def _read(self, store: _Store) -> None:
        """Bring a store's images in line. While its records are unreadable, it keeps those that it had. Raises TimedOut."""
        from criollo.storage import foreign, foreign_look

        said: dict[str, CriolloError] = {}
        try:
            contents = await foreign_look.read_store(store.root, store.known)
        except TimedOut:
            raise
        except (Denied, NotFound, Unsupported) as error:
            contents, said = foreign.Contents((), ()), {"": error}
        except CriolloError as error:
            contents, said = None, {"": error}
            store.stamp = None if isinstance(error, HostFailed) else store.stamp
        if contents is not None:
            said.update(contents.refused)
            store.known = {image.record: image for image in contents.images}
            store.images = tuple(self._image(store.root, image) for image in contents.images)
        self._tell(store, said)
        store.again_at = time.monotonic() + AGAIN_S if said else math.inf

    def _image(self, root: Path, found: "ForeignImage") -> Image:
        from criollo.storage import foreign

        layers = []
        for layer_id in found.layers:
            name = foreign.layer_name(root, layer_id)
            self._ids[name] = layer_id
            self._layers.foreign[name] = foreign.layer_path(root, layer_id)
            layers.append(name)
        self._signatures[str(root), found.digests[0]] = found.signatures
        names = _references(found.record.names or ())
        repositories = dict.fromkeys(name.name for name in names)
        return Image(
            id=ImageId(found.config_digest.hex),
            names=tuple(str(name) for name in names if name.digest is None),
            digests=tuple(f"{repository}@{digest}" for repository in repositories for digest in found.digests),
            manifest_digest=str(found.digests[0]),
            manifest=found.manifest,
            config=found.config,
            layers=tuple(layers),
            size_bytes=found.size_bytes,
            pulled_ns=0,
            pinned=True,
            store=str(root),
        )

    def _index(self) -> None:
        """Bring the look-ups in line with what the stores hold; the first store wins."""
        self._by_id, self._by_name = {}, {}
        for store in self._stores:
            for image in store.images:
                self._by_id.setdefault(image.id, image)
                for name in (*image.names, *image.digests):
                    self._by_name.setdefault(name, image)

    def _tell(self, store: _Store, said: Mapping[str, CriolloError]) -> None:
        """Log what is wrong with a store or, by id, with images in it; what was said of the last look is not repeated."""
        for image, error in said.items():
            if (image, str(error)) in store.told:
                continue
            if image:
                log.warning("image of a store cannot be used", store=store.root, image=image, error=error)
            else:
                log.warning("image store cannot be used as it is", store=store.root, error=error)
        store.told = {(image, str(error)) for image, error in said.items()}


def _references(names: Iterable[str]) -> list[Reference]:
    """Those of the names that are references; another tool may call an image anything."""
    found = []
    for name in names:
        try:
            found.append(Reference.parse(name))
        except Invalid as error:
            log.debug("name of an image in a store left out", name=name[:200], error=error)
    return found
