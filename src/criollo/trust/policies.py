"""Which policy.json is in force: of the pod's namespace, else the configured one, else the one of the container tools.

Files are looked at with each question and read again when they changed, so a policy that was tightened counts at once. A
question costs a few stat calls. A file that cannot be used denies, so does one that went away, and so does a node without
any: no older or wider policy steps in for it. Only the policy of a namespace may be taken away: then the node's holds for it
again.
"""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from criollo.errors import CriolloError, Denied
from criollo.trust.policy import EXAMPLE, Policy, find_policy, places

Stamp = tuple[int, int, int, int, int]

_NAMESPACE: Final = re.compile(r"[^/\0]{1,250}")  # what may be the beginning of a file's name
# A file that changed less than this before it was read may change again without another time stamp.
_SETTLED_NS: Final = 50_000_000
_MAX_KEPT: Final = 1024


class _Read(NamedTuple):
    policy: Policy
    stamp: Stamp
    is_settled: bool


class Policies:
    """The policies of this node."""

    def __init__(
        self, path: Path | None = None, *, directory: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        """`path` is the configured policy, `directory` that of `<namespace>.json`; `environ` leads to a user's own policy."""
        self._path, self._directory, self._environ = path, directory, dict(environ or {})
        self._read: dict[Path, _Read] = {}
        self._fixed: Policy | None = None
        self._had_one = False

    @classmethod
    def of(cls, policy: Policy) -> "Policies":
        """One policy for everything."""
        policies = cls()
        policies._fixed = policy
        return policies

    def find(self, namespace: str = "") -> Policy:
        """The policy for images of pods in a namespace; without a namespace, the node's.

        Raises:
            Denied: its file cannot be used, or there is none.
        """
        if self._fixed is not None:
            return self._fixed
        try:
            own = self._of_namespace(namespace)
            return own if own is not None else self._of_node()
        except Denied:
            raise
        except (CriolloError, OSError) as error:
            raise Denied(f"no image may be used: the signature policy cannot be read: {error}") from error

    def all(self) -> list[Policy]:
        """Every policy that may be asked for; those that cannot be used are left out."""
        found = []
        for namespace in ("", *self._namespaces()):
            try:
                policy = self.find(namespace)
            except Denied:
                continue
            if policy not in found:
                found.append(policy)
        return found

    def _namespaces(self) -> list[str]:
        try:
            names = sorted(os.listdir(self._directory)) if self._directory is not None else []
        except OSError:
            return []
        return [name.removesuffix(".json") for name in names if name.endswith(".json")][:_MAX_KEPT]

    def _of_namespace(self, namespace: str) -> Policy | None:
        if not namespace or self._directory is None:
            return None
        if not _NAMESPACE.fullmatch(namespace):
            raise Denied(f"no image may be used in namespace {namespace!r}: it is no name of a Kubernetes namespace")
        return self._load(self._directory / f"{namespace}.json")

    def _of_node(self) -> Policy:
        path = self._path if self._path is not None else find_policy(self._environ)
        found = self._load(path) if path is not None else None
        if found is not None:
            self._had_one = True
            return found
        if self._path is not None or self._had_one:
            gone = self._path or path or places(self._environ)[-1]
            raise Denied(f"no image may be used: signature policy {gone} is not there any more; put it back")
        looked = " or ".join(map(str, places(self._environ)))
        raise Denied(f"no image may be used: there is no signature policy {looked}; to accept every image, write {EXAMPLE}")

    def _load(self, path: Path) -> Policy | None:
        """The policy of a file, read anew if that changed; None if there is no file."""
        stamp, is_settled = look(path)
        if stamp is None:
            self._read.pop(path, None)
            return None
        known = self._read.get(path)
        if known is not None and known.stamp == stamp and known.is_settled:
            return known.policy
        try:
            policy = Policy.load(path)
        except CriolloError:
            if stamp_of(path) is None:  # it went away meanwhile
                return self._load(path)
            raise
        if known is not None and known.policy.fingerprint == policy.fingerprint:
            policy = known.policy
        if len(self._read) >= _MAX_KEPT:
            self._read.clear()
        self._read[path] = _Read(policy, stamp, is_settled)
        return policy


def look(path: str | Path) -> tuple[Stamp | None, bool]:
    """The stamp of a file, and whether another content would have another one: not so of one that changed just now."""
    looked_ns = time.time_ns()
    stamp = stamp_of(path)
    return stamp, stamp is None or looked_ns - max(stamp[3], stamp[4]) > _SETTLED_NS


def stamp_of(path: str | Path) -> Stamp | None:
    """What changes when a file does; None if it is not there."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
