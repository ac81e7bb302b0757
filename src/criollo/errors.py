"""The errors of Criollo: one class per thing that a caller can do about it.

The class decides the gRPC code (`cri/errors.py` maps it and alone knows status codes). A message reads
*cannot do what to which object: cause; remedy*, because kubelet shows it to a person who has never seen our code.
This module imports nothing of ours.
"""

import contextlib
import errno
from collections.abc import Iterator, Sequence


class CriolloError(Exception):
    """Anything Criollo reports on purpose; everything else that escapes is a bug of ours.

    Its text is UTF-8 whatever it names: a container may give its files names that are not, and messages, records and log
    lines take nothing else.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(text if text.isascii() else text.encode("utf-8", "backslashreplace").decode())


class Invalid(CriolloError):
    """A request or a file is malformed; the caller must change it."""

    def __init__(self, field: str, got: object, expected: str) -> None:
        self.field, self.got, self.expected = field, got, expected
        super().__init__(f"{field}: got {_shown(got)}, expected {expected}")


class NotFound(CriolloError):
    """There is no such pod, container, image or runtime handler."""

    def __init__(self, kind: str, name: str, hint: str = "") -> None:
        self.kind, self.name = kind, name
        shown = _plain(name) or "''"
        super().__init__(f"{kind} {shown} not found" + (f": {hint}" if hint else ""))


class Exists(CriolloError):
    """The name is taken by something different."""

    def __init__(self, kind: str, name: str, holder: str) -> None:
        self.kind, self.name, self.holder = kind, name, holder
        super().__init__(f"{kind} name {_plain(name)} is taken by {holder}; remove that one first")


class WrongState(CriolloError):
    """The right object at the wrong moment."""

    def __init__(self, kind: str, name: str, state: str, needs: str) -> None:
        self.kind, self.name, self.state, self.needs = kind, name, state, needs
        super().__init__(f"{kind} {name} is {state}; this needs {needs}")


class Denied(CriolloError):
    """A trust policy, an annotation rule or a device rule forbids it."""


class Forbidden(CriolloError):
    """A registry does not let us, whoever we are, or registries.conf blocks it."""


class Unauthenticated(CriolloError):
    """A registry wants other credentials."""


class Exhausted(CriolloError):
    """Disk, inodes, pids, file descriptors or ids are used up."""


class Unavailable(CriolloError):
    """A registry, a network plugin or the daemon is not ready; try again."""


class TimedOut(CriolloError):
    """Our own limit or the caller's deadline passed."""


class Damaged(CriolloError):
    """Data is not what its digest says: a blob, a layer, a database."""


class Unsupported(CriolloError):
    """The kernel, the runtime or this build lacks it."""


class HostFailed(CriolloError):
    """The kernel refused something for a reason that has no class of its own."""


class VolumeFailed(CriolloError):
    """An image or artifact cannot be mounted as a volume; the message says which and why."""


class ToolFailed(CriolloError):
    """A runtime, monitor, plugin or hook failed; `stderr_tail` is what it said last."""

    def __init__(self, what: str, argv: Sequence[str], status: int | None, stderr_tail: str) -> None:
        self.what, self.argv, self.status, self.stderr_tail = what, tuple(argv), status, stderr_tail
        ended = "did not finish" if status is None else f"exit status {status}" if status >= 0 else f"signal {-status}"
        said = f": {_plain(stderr_tail.strip())}" if stderr_tail.strip() else ""
        super().__init__(f"{what}: {argv[0] if argv else '?'} failed ({ended}){said}")


_EXHAUSTED = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
_UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP}


def from_os(error: OSError, what: str) -> CriolloError:
    """The error of ours for a failed system call; `what` reads 'cannot mount rootfs of container 3f9c'."""
    cause = error.strerror or str(error)
    where = f" ({error.filename})" if error.filename else ""
    text = f"{what}: {cause}{where}"
    if error.errno in _EXHAUSTED:
        return Exhausted(f"{text}; free some and try again")
    if error.errno in _UNSUPPORTED:
        return Unsupported(text)
    return HostFailed(text)


def refuse_scarce(error: OSError, what: str) -> None:
    """Raise Exhausted if that is why a call failed: what cannot be looked at for want of a descriptor may be there."""
    told = from_os(error, what)
    if isinstance(told, Exhausted):
        raise told from error


@contextlib.contextmanager
def explain(what: str) -> Iterator[None]:
    """Turn an `OSError` of the block into ours, with `what` in front: 'cannot <what>: <cause>'."""
    try:
        yield
    except OSError as error:
        raise from_os(error, f"cannot {what}") from error


def printable(text: str) -> str:
    """Text from elsewhere as it may stand in a message: control characters escaped, length bounded."""
    return _plain(text)


def _plain(text: str) -> str:
    """Text from elsewhere, safe to print: control and bidirectional characters are escaped, length bounded."""
    text = text if len(text) <= 2000 else text[:1000] + " … " + text[-1000:]
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text)


def _shown(value: object) -> str:
    text = _plain(repr(value))
    return text if len(text) <= 200 else text[:197] + "..."
