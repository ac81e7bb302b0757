"""What the daemon asks of a worker and what the worker answers: JSON of known shape, never pickle.

A job travels to the fork server as one packet, with its descriptors beside it: first the socket for the answers, then
those that the job's docstring names. Answers are packets on that socket: any number of `Progress`, one `Done` or
`Failed`, and from the fork server `Ended` when the process is gone, after which the socket closes.
"""

from typing import Final

import msgspec

from criollo.workers.ids import Ids

MAX_PACKET_BYTES: Final = 64 << 10
MAX_FDS: Final = 8
MAX_ENTRIES: Final = 10_000_000  # of one layer


class Cipher(msgspec.Struct, frozen=True, kw_only=True):
    """What opens an encrypted layer: AES-256 in counter mode, and the HMAC of the encrypted bytes. A secret."""

    key: bytes
    nonce: bytes
    hmac: bytes

    def __repr__(self) -> str:
        return "Cipher(***)"


class UnpackJob(msgspec.Struct, frozen=True, kw_only=True, tag="unpack"):
    """Unpack a layer. Descriptors: the empty directory, the pipe with the compressed bytes, one that can be read while there
    are processors to spare (`workers.spare`), and with `sealed` its seal's."""

    compression: str
    limit_bytes: int
    limit_entries: int
    cipher: Cipher | None = None
    sealed: bool = False


class VerifyJob(msgspec.Struct, frozen=True, kw_only=True, tag="verify"):
    """Hold a layer against its seal. Descriptors: its directory, the seal.

    At most `bytes_per_s` of content are read, 0 for as fast as it goes; `idle`: only when nobody else wants the disk.
    """

    diff_id: str
    file: str = ""  # hold this file alone against the digest; the second descriptor then counts for nothing
    bytes_per_s: int = 0
    idle: bool = False


class PackJob(msgspec.Struct, frozen=True, kw_only=True, tag="pack"):
    """Write a layer as a tar. Descriptors: its directory, the pipe to write to."""

    compression: str = "none"


class AssembleJob(msgspec.Struct, frozen=True, kw_only=True, tag="assemble"):
    """Make one tree of layers. Descriptors: the directory with the layers, the empty directory of the tree.

    `names` are the layers, bottom first, a whole path where one stands elsewhere; `link`: files may be the layers' own inodes;
    `sync`: flush the file system at the end.
    """

    names: tuple[str, ...]
    link: bool = False
    sync: bool = False


class UnwrapJob(msgspec.Struct, frozen=True, kw_only=True, tag="unwrap"):
    """Find the key of an encrypted layer: the first of `jwes` that a private key in the directory `keys` opens.

    No descriptors. `what` names the layer in messages.
    """

    jwes: tuple[str, ...]
    keys: str
    what: str


class ProbeJob(msgspec.Struct, frozen=True, kw_only=True, tag="probe"):
    """Look at a volume source. No descriptors. With `root` the path is as a process rooted there would see it."""

    path: str
    create: bool
    root: str = ""


class DevicesJob(msgspec.Struct, frozen=True, kw_only=True, tag="devices"):
    """Look at a device node, or at all below a directory. No descriptors."""

    path: str


class DuplicateJob(msgspec.Struct, frozen=True, kw_only=True, tag="duplicate"):
    """Copy a file or a directory of this node, links followed. No descriptors.

    The copies belong to `owner` and have the SELinux label `label`, if there is one; more than the limits is refused.
    """

    path: str
    target: str
    owner: tuple[int, int]
    limit_bytes: int
    limit_entries: int
    label: str = ""


class RelabelJob(msgspec.Struct, frozen=True, kw_only=True, tag="relabel"):
    """Give a volume an SELinux label. No descriptors. `skip_if_right`: not when its top has one that means the same."""

    path: str
    label: str
    skip_if_right: bool = False


class UsernsJob(msgspec.Struct, frozen=True, kw_only=True, tag="userns"):
    """Make a user namespace and namespaces of the other kinds that it owns (`net`, `ipc`, `uts`). No descriptors.

    The maps are in the format of /proc/PID/uid_map. Sysctls are written inside, by its root: ids in their values are those
    inside, and the kernel lets nobody else write those of ipc. The answer comes with a descriptor per kind.
    """

    uid_map: str
    gid_map: str
    kinds: tuple[str, ...]
    sysctls: dict[str, str] = {}


class CollectJob(msgspec.Struct, frozen=True, kw_only=True, tag="collect"):
    """Read a path of a container's root as a tar. Descriptors: the root, the pipe to write to.

    What is read is called `name` in the tar; `follow` a link at the end of the path.
    """

    path: str
    name: str
    follow: bool = False
    ids: Ids = Ids()


class PlaceJob(msgspec.Struct, frozen=True, kw_only=True, tag="place"):
    """Write a tar to a path of a container's root. Descriptors: the root, the pipe with the archive.

    `shape` is one of `workers.landing.Shape`, `base` the last name of the source.
    """

    path: str
    shape: str
    base: str = ""
    ids: Ids = Ids()


Look = ProbeJob | DevicesJob | DuplicateJob  # what one process does several of
Job = UnpackJob | VerifyJob | UnwrapJob | PackJob | AssembleJob | Look | RelabelJob | UsernsJob | CollectJob | PlaceJob


class Unpacked(msgspec.Struct, frozen=True, kw_only=True, tag="unpacked"):
    """An unpacked layer. `implied` are directories that the layer uses but does not describe, for `storage.layers`."""

    diff_id: str
    size_bytes: int
    inodes: int
    implied: tuple[str, ...] = ()


class Verified(msgspec.Struct, frozen=True, kw_only=True, tag="verified"):
    """A layer that was held against its seal. `damage` are the first of `damaged` findings, in words.

    `proven`: every byte of the archive was there, and they add up to the diff id; not so where an entry was replaced by a
    later one of the same layer, whose content is then known by its CRCs only.
    """

    damage: tuple[str, ...]
    damaged: int
    files: int
    size_bytes: int
    proven: bool


class Packed(msgspec.Struct, frozen=True, kw_only=True, tag="packed"):
    """A written layer tar, and the bytes that went into the pipe, which may be compressed."""

    diff_id: str
    size_bytes: int
    digest: str
    blob_bytes: int


class Assembled(msgspec.Struct, frozen=True, kw_only=True, tag="assembled"):
    """A tree that was put together, and what it takes on the disk by itself."""

    used_bytes: int
    inodes: int


class Probe(msgspec.Struct, frozen=True, kw_only=True, tag="probe"):
    """A volume source. `kind` is directory, file, block, char, fifo, socket or missing; `path` is free of links.

    `stamp` is its inode, time of change in nanoseconds, and size.
    """

    kind: str
    path: str = ""
    major: int = 0
    minor: int = 0
    mount_point: str = ""
    propagation: str = "private"  # of the mount that holds it: private, shared or slave
    fstype: str = ""
    readonly: bool = False
    stamp: tuple[int, int, int] = (0, 0, 0)


class Devices(msgspec.Struct, frozen=True, kw_only=True, tag="devices"):
    """Device nodes: path, type (c or b), major, minor, mode, uid, gid. `errno`: why there is nothing to look at."""

    nodes: tuple[tuple[str, str, int, int, int, int, int], ...] = ()
    errno: int = 0


class Duplicated(msgspec.Struct, frozen=True, kw_only=True, tag="duplicated"):
    """A copy, and what of the limits is left. `missing`: there is no source."""

    left_bytes: int = 0
    left_entries: int = 0
    missing: bool = False


class Relabelled(msgspec.Struct, frozen=True, kw_only=True, tag="relabelled"):
    """How many files and directories got another label."""

    changed: int
    skipped: bool = False


class Namespaces(msgspec.Struct, frozen=True, kw_only=True, tag="namespaces"):
    """The kinds of the namespaces whose descriptors came along, in the same order; or the sysctl file at fault, and why."""

    kinds: tuple[str, ...]
    refused: str = ""
    errno: int = 0


class Unwrapped(msgspec.Struct, frozen=True, tag="unwrapped"):
    """What was inside a JWE. A secret."""

    content: bytes

    def __repr__(self) -> str:
        return "Unwrapped(***)"


class Copied(msgspec.Struct, frozen=True, kw_only=True, tag="copied"):
    """Files that were read or written. `changed`: the first few that became shorter while they were read."""

    entries: int
    size_bytes: int
    changed: tuple[str, ...] = ()


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    done_bytes: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The job failed. `error` names one of our error classes."""

    error: str
    text: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The process is gone: its exit status, negative for a signal."""

    status: int


Result = Unpacked | Verified | Unwrapped | Packed | Assembled | Probe | Devices | Duplicated | Relabelled | Namespaces | Copied
Answer = Result | Progress | Failed | Ended
