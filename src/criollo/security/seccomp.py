"""Which seccomp filter a container runs under, and that filter as runtimes take it.

    asked for            privileged                         otherwise
    nothing              none                               none
    Unconfined           none                               none
    RuntimeDefault       none, or `privileged_seccomp_      the handler's profile, else the node's, else our own
    Localhost            profile` where that is set         the file, read anew for each container

A filter depends on the container's capabilities only, so it is compiled once for each set of them and kept; `config.json` gets
the bytes. A kernel without seccomp runs everything unconfined, except what asks for a profile of its own.
"""

import base64
import errno
import functools
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from criollo.errors import Invalid, NotFound, Unsupported, from_os
from criollo.linux import libc, seccomp
from criollo.linux.files import open_directory, read_limited
from criollo.model.pod import ProfileType, SecurityProfile
from criollo.oci.runtime_spec import Seccomp
from criollo.security.seccomp_default import default_profile
from criollo.security.seccomp_profile import MAX_FILE_BYTES, parse
from criollo.security.seccomp_rules import Compilable, Target
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

PROFILE_ROOT: Final = Path("/var/lib/kubelet/seccomp")  # kubelet --seccomp-profile-root; relative names are looked up here
RUNTIME_DEFAULT: Final = "RuntimeDefault"

_KEPT_FILTERS: Final = 64
_KEPT_PROFILES: Final = 32
_MAX_PRECOMPILED: Final = 4000  # rules: libseccomp takes seconds for many more, which is then the runtime's time
_BENEATH: Final = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_MAGICLINKS


class Host(NamedTuple):
    """Where containers run; `root` is below which relative names of profiles lie."""

    machine: str
    kernel: tuple[int, int]
    enabled: bool = True
    root: Path = PROFILE_ROOT


class Filter(NamedTuple):
    """`linux.seccomp` as JSON; `program` is the same in base64 for runtimes that need not compile it then, or empty."""

    document: msgspec.Raw
    program: str = ""


class Profile:
    """A profile in use; `name` is RuntimeDefault or its path. Safe to share between threads."""

    def __init__(self, name: str, source: Compilable, host: Host) -> None:
        self.name, self._source, self._host = name, source, host
        self._lock = threading.Lock()
        self._filters: dict[tuple[frozenset[str], bool], Filter] = {}

    def filter(self, capabilities: Iterable[str], *, precompiled: bool = False, listener: str = "") -> Filter:
        """The filter of a container with this bounding set. The first time for a set: 1 ms, and 20 ms more precompiled.

        What it refuses is heard of behind the socket at `listener`, if there is one; such a filter is made anew each time.
        """
        if listener:
            from criollo.security.seccomp_listener import heard  # for the few containers that ask for it

            return Filter(msgspec.Raw(msgspec.json.encode(heard(self._compile(frozenset(capabilities)), listener))))
        key = (frozenset(capabilities), precompiled)
        found = self._filters.get(key)
        if found is None:
            with self._lock:
                found = self._filters.get(key) or self._keep(key)
        return found

    def _keep(self, key: tuple[frozenset[str], bool]) -> Filter:
        compiled = self._compile(key[0])
        found = _precompiled(compiled, self.name) if key[1] else Filter(msgspec.Raw(msgspec.json.encode(compiled)))
        if len(self._filters) >= _KEPT_FILTERS:
            self._filters.pop(next(iter(self._filters)))
        self._filters[key] = found
        return found

    def _compile(self, capabilities: frozenset[str]) -> Seccomp:
        return self._source.compile(Target(capabilities=capabilities, machine=self._host.machine, kernel=self._host.kernel))


class Profiles:
    """The profiles of a node, and the choice among them."""

    def __init__(self, host: Host, *, default: Path | None = None, privileged: Path | None = None) -> None:
        """Read the configured profile; one that is not there is replaced by our own, as crio.conf(5) has it.

        Raises:
            Invalid, Unsupported, HostFailed: it is there, and is no profile.
        """
        self._host, self._privileged = host, privileged
        self._handlers: dict[str, Profile] = {}
        self._read: dict[tuple[str, bytes], Profile] = {}
        self._lock = threading.Lock()
        self._default = Profile(RUNTIME_DEFAULT, default_profile(), host)
        if default is not None:
            try:
                self._default = self._configured(default, "seccomp_profile")
            except NotFound:
                log.warning("seccomp_profile is not there; the built-in profile is the default", path=default)
        if not host.enabled:
            log.warning("the kernel has no seccomp: containers that ask for the default profile run without one")

    @classmethod
    def of_node(cls, kernel: tuple[int, int], *, default: str = "", privileged: str = "") -> "Profiles":
        """The profiles of this machine, from the paths in the configuration; empty for none."""
        host = Host(machine=os.uname().machine, kernel=kernel, enabled=_is_enabled())
        return cls(host, default=Path(default) if default else None, privileged=Path(privileged) if privileged else None)

    def set_handlers(self, paths: Mapping[str, str]) -> None:
        """Read the profiles that handlers have of their own.

        Raises:
            NotFound, Invalid, Unsupported, HostFailed: a file is not there, or no profile.
        """
        self._handlers = {
            name: self._configured(Path(path), f"seccomp_profile of handler {name}") for name, path in paths.items() if path
        }

    def choose(self, asked: SecurityProfile | None, *, privileged: bool, handler: str) -> Profile | None:
        """The profile of a container or infra container, None for unconfined. Reads a file for Localhost.

        Raises:
            NotFound: the file is not there.
            Invalid: it is no profile; the message has the field.
            Unsupported: it wants what this node cannot do.
        """
        if privileged:
            return self._local(str(self._privileged), "privileged_seccomp_profile") if self._privileged else None
        if asked is None or asked.type is ProfileType.UNCONFINED:
            return None
        if asked.type is ProfileType.LOCALHOST:
            return self._local(asked.localhost_ref, "seccomp.localhost_ref")
        return self._handlers.get(handler, self._default) if self._host.enabled else None

    def file_of(self, asked: SecurityProfile | None, *, privileged: bool) -> str:
        """The file that `choose` would read; empty for none."""
        if privileged:
            return str(self._privileged or "")
        if asked is None or asked.type is not ProfileType.LOCALHOST or not asked.localhost_ref:
            return ""
        return str(self._host.root / asked.localhost_ref)

    def _configured(self, path: Path, field: str) -> Profile:
        try:
            return Profile(RUNTIME_DEFAULT, parse(_read(path, field), f"{field} {path}"), self._host)
        except Invalid:
            log.error("decoding seccomp profile failed", path=path)  # CRI-O's words: tools look for them
            raise

    def _local(self, ref: str, field: str) -> Profile:
        if not self._host.enabled:
            raise Unsupported(f"cannot apply {field} {ref}: the kernel has no seccomp")
        raw = _read(Path(ref), field) if ref.startswith("/") else _read_beneath(self._host.root, ref, field)
        return self._parsed(raw, ref, f"{field} {ref}")

    def from_bytes(self, raw: bytes, ref: str) -> Profile | None:
        """The profile in a document that somebody else has read; None where the kernel has no seccomp.

        Raises:
            Invalid, Unsupported: it is no profile; the message has the field.
        """
        return self._parsed(raw, ref, f"seccomp profile {ref}") if self._host.enabled else None

    def _parsed(self, raw: bytes, ref: str, what: str) -> Profile:
        key = (ref, hashlib.sha256(raw).digest())
        with self._lock:
            known = self._read.pop(key, None)
        profile = known or Profile(ref, parse(raw, what), self._host)
        with self._lock:
            self._read[key] = profile
            if len(self._read) > _KEPT_PROFILES:
                self._read.pop(next(iter(self._read)))
        return profile


def without_unknown(profile: Seccomp) -> Seccomp:
    """The profile without names that libseccomp of this host ignores: old runtimes write a warning for each, every time."""
    known = [
        msgspec.structs.replace(rule, names=tuple(name for name in rule.names if seccomp.is_known(name)))
        for rule in profile.syscalls
    ]
    return msgspec.structs.replace(profile, syscalls=tuple(rule for rule in known if rule.names))


def program_of(profile: Seccomp) -> bytes:
    """The filter as the kernel runs it.

    Raises:
        OSError: libseccomp is not there, or refuses it.
    """
    default = seccomp.Rule("", profile.default_action, _code(profile.default_errno_ret))
    rules = (
        seccomp.Rule(
            name,
            rule.action,
            _code(rule.errno_ret),
            tuple(seccomp.Comparison(a.index, a.op, a.value, a.value_two) for a in rule.args),
        )
        for rule in profile.syscalls
        for name in rule.names
    )
    return seccomp.program(default, profile.architectures, rules)


def _code(given: int | None) -> int:
    return errno.EPERM if given is None else given


def _precompiled(profile: Seccomp, name: str) -> Filter:
    """Both forms; where libseccomp cannot make the program, the runtime compiles the document as ever."""
    if not seccomp.is_available() or sum(len(r.names) * max(1, len(r.args)) for r in profile.syscalls) > _MAX_PRECOMPILED:
        return Filter(msgspec.Raw(msgspec.json.encode(profile)))
    profile = without_unknown(profile)
    document = msgspec.Raw(msgspec.json.encode(profile))
    try:
        return Filter(document, base64.b64encode(program_of(profile)).decode())
    except OSError as error:
        log.warning("seccomp profile is left to the runtime to compile", profile=name, error=error)
        return Filter(document)


def _read(path: Path, field: str) -> bytes:
    """A file by its absolute path; links are followed, because whoever names it reaches all files here anyway."""
    return _read_opened(lambda: os.open(path, os.O_PATH | os.O_CLOEXEC), str(path), field)


def _read_beneath(root: Path, ref: str, field: str) -> bytes:
    def opened() -> int:
        directory = open_directory(root)
        try:
            return libc.openat2(directory, ref, os.O_PATH, resolve=_BENEATH)
        finally:
            os.close(directory)

    return _read_opened(opened, f"{root}/{ref}", field)


def _read_opened(opened: Callable[[], int], path: str, field: str) -> bytes:
    """A regular file, found first and opened then: opening a device or a FIFO would act."""
    try:
        found = opened()
        try:
            mode = os.fstat(found).st_mode
            if not stat.S_ISREG(mode):
                raise Invalid(field, path, f"a regular file, not {stat.filemode(mode)}")
            return read_limited(f"/proc/self/fd/{found}", MAX_FILE_BYTES, name=f"{field} {path}")
        finally:
            os.close(found)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound("seccomp profile", path, f"open {path}: no such file or directory ({field})") from error
    except OSError as error:
        raise from_os(error, f"cannot read {field} {path}") from error


@functools.cache
def _is_enabled() -> bool:
    """Whether the kernel has filters: the line is there even for a process without one. Source: proc(5)."""
    return b"\nSeccomp:" in Path("/proc/self/status").read_bytes()
