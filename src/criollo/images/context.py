"""What the image verbs work with: rows, layers, workers, registries, policy."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, NamedTuple

from criollo.aio.jobs import Jobs
from criollo.aio.locks import KeyedLocks, KeyedSlots
from criollo.images.flush import Flush
from criollo.images.foreign import ForeignImages
from criollo.images.progress import Board
from criollo.linux import procfs
from criollo.model.ids import ImageId
from criollo.oci.platform import Platform
from criollo.registry.client import Registry
from criollo.registry.hosts import Hosts
from criollo.registry.logins import Logins
from criollo.state.images import ImageRows, LayerRow
from criollo.storage.layers import Layers
from criollo.storage.rootfs import RootStore
from criollo.trust.judge import Judge
from criollo.trust.policies import Policies
from criollo.trust.policy import Policy
from criollo.workers.pool import Workers

MAX_LAYER_BYTES: Final = 64 << 30  # of one layer, unpacked: beyond it is a bomb, not an image
UNPACKS_PER_SOURCE: Final = 3  # at once from one registry, so that a slow one leaves workers to the others


class Finished(NamedTuple):
    """A layer whose directory is whole, without a row yet; `at` is in monotonic seconds.

    `failures`: how many flushes had failed when it was begun (`images.flush`).
    """

    row: LayerRow
    at: float
    failures: int = 0


class Images:
    """The drivers under the image verbs, and what is in progress.

    `leases` counts the layers that a running verb needs: they are not collected. `finished` holds layers whose directory
    is whole but which have no row yet: a cut pull leaves them to the next one for a while (`images.collect`).
    `unpacks` are the places for unpacking, by source: a registry, or empty for files. `retiring` is for `images.retired`.
    `in_use(image_id)` names the containers that need an image; the wiring sets it, since containers live a floor above.
    """

    def __init__(
        self,
        rows: ImageRows,
        layers: Layers,
        *,
        roots: RootStore,
        workers: Workers,
        registry: Registry,
    ) -> None:
        self.rows, self.layers, self.roots, self.workers, self.registry = rows, layers, roots, workers, registry
        self.hosts: Hosts = registry.hosts
        self.foreign = ForeignImages((), layers, workers)
        self.judge = Judge(Policies.of(Policy.accept_all()), scratch=rows.path.parent / "trust")
        self.signatures_conf: Path | None = None  # the directory registries.d
        self.platform: Platform | None = None  # None: the host's
        self.pinned: Collection[str] = ()
        self.preloaded: set[str] = set()  # ids of images that the preload directory pins
        self.mounts_artifacts = True
        self.decryption_keys = Path("/etc/crio/keys")  # private keys that open encrypted layers, a file each
        self.progress_timeout_s: float = 0
        self.big_files: Path | None = None  # where large files wait; None: where they belong to
        self.namespaced_auth_dir: Path | None = None
        self.own_logins: dict[str, Logins] = {}  # by an image's name, as requests have it: instead of the client's own
        self.clock: Callable[[], int] = time.time_ns
        self.boot = procfs.boot_id()
        self.flush = Flush(rows, layers, boot=self.boot)
        self.pulls: Jobs[ImageId] = Jobs("pull")
        self.progress = Board()
        self.layer_limit_bytes = MAX_LAYER_BYTES
        self.layer_locks = KeyedLocks()
        self.unpacks = KeyedSlots(UNPACKS_PER_SOURCE)
        self.leases: Counter[str] = Counter()
        self.finished: dict[str, Finished] = {}
        self.retiring = threading.Lock()
        self.in_use: Callable[[str], list[str]] = lambda image_id: []
