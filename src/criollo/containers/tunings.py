"""Who changed which value of the node, and what it was before: written down before it is changed, put back by the last one.

    <runroot>/tuned.json        per value: path, CPU, what it was, and what each container wants of it

A reboot undoes all changes, so what another boot wrote down counts for nothing. Blocking, safe to share between threads.
"""

import errno
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from criollo.errors import explain
from criollo.linux import files, knobs
from criollo.linux.knobs import Knob
from criollo.linux.procfs import boot_id
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_MAX_BYTES: Final = 16 << 20
_GONE: Final = (errno.ENOENT, errno.ENODEV)  # with its cgroup or CPU


class _Held(msgspec.Struct, kw_only=True):
    path: str
    cpu: int
    was: str
    wanted: dict[str, str]  # by container; the last one counts


class _Document(msgspec.Struct, kw_only=True):
    boot: str
    held: list[_Held] = []


class Tunings:
    """Values of the node that containers hold, in `file`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._held: dict[Knob, _Held] = {}
        self._load()

    def holders(self) -> set[str]:
        """The containers that hold anything, and those that could not give it back."""
        with self._lock:
            return {container for held in self._held.values() for container in held.wanted}

    def cpus_of(self, path: str) -> frozenset[int]:
        """The CPUs of which anybody holds what a file says."""
        with self._lock:
            return frozenset(knob.cpu for knob, held in self._held.items() if knob.path == path and held.wanted)

    def hold(self, container_id: str, wanted: Mapping[Knob, str]) -> None:
        """Set values for a container, in this order; all of them or none. Safe to repeat.

        Raises:
            HostFailed: one is not there or refused; the message has its file.
        """
        with self._lock, explain(f"set up the CPUs of container {container_id}"):
            new = [knob for knob in wanted if knob not in self._held]
            self._held |= {each: _Held(path=each.path, cpu=each.cpu, was=knobs.read(each), wanted={}) for each in new}
            for knob, value in wanted.items():
                others = self._held[knob].wanted
                others.pop(container_id, None)
                others[container_id] = value
            try:
                self._save()
                knobs.write_all(wanted)
                _check(wanted)
            except OSError:
                self._put_back(container_id)
                raise

    def release(self, container_id: str) -> None:
        """Put back what a container alone holds, in the other order. Nothing held is success.

        Raises:
            HostFailed: a value could not be put back; the next release tries again.
        """
        with self._lock, explain(f"put back the CPUs of container {container_id}"):
            if (trouble := self._put_back(container_id)) is not None:
                raise trouble

    def _put_back(self, container_id: str) -> OSError | None:
        trouble: OSError | None = None
        mine = {knob: held for knob, held in self._held.items() if container_id in held.wanted}
        for path in reversed(dict.fromkeys(knob.path for knob in mine)):
            here = {knob: held for knob, held in mine.items() if knob.path == path}
            left = {
                knob: [value for other, value in held.wanted.items() if other != container_id] for knob, held in here.items()
            }
            try:
                knobs.write_all({knob: (left[knob] or [held.was])[-1] for knob, held in here.items()})
            except OSError as error:
                if error.errno not in _GONE:
                    trouble = error
                    continue
                log.debug("a value of the node is gone", path=path)
            for knob, held in here.items():
                del held.wanted[container_id]
                if not held.wanted:
                    del self._held[knob]
        self._save()
        return trouble

    def _load(self) -> None:
        with explain(f"read {self._file}"):
            try:
                raw = files.read_limited(self._file, _MAX_BYTES)
            except FileNotFoundError:
                return
        try:
            found = msgspec.json.decode(raw, type=_Document)
        except msgspec.MsgspecError as error:
            log.error("what the node's CPUs were set to is lost", file=self._file, error=error)
            return
        if found.boot == boot_id():
            self._held = {Knob(each.path, each.cpu): each for each in found.held}

    def _save(self) -> None:
        """A crash leaves this or what was before: what is written down is put back, changed or not."""
        if not self._held:
            self._file.unlink(missing_ok=True)
            return
        files.write_atomic(self._file, msgspec.json.encode(_Document(boot=boot_id(), held=list(self._held.values()))))


def _check(wanted: Mapping[Knob, str]) -> None:
    """The kernel takes some values and says afterwards that they are invalid."""
    for knob in wanted:
        if knob.cpu == knobs.WHOLE and "invalid" in (said := knobs.read(knob)):
            raise OSError(errno.EINVAL, f"the kernel says {said!r}", knob.path)
