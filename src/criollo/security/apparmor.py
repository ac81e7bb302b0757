"""Which AppArmor profile a container runs under, and the node's default profile in the kernel.

    asked for            privileged      otherwise
    nothing              unconfined      the node's default, none where it cannot be loaded
    RuntimeDefault       unconfined      the node's default, refused where it cannot be loaded
    Unconfined           unconfined      unconfined
    Localhost            unconfined      the named profile, which must be loaded

Only a node whose kernel has AppArmor gets an object of this class; nobody else imports it.

The default is `apparmor_profile` of the configuration: `crio-default`, which we make and load, another one, which must be
loaded when the daemon starts, or `unconfined`. Ours is loaded again when the kernel has none of that name, or not the one
that we put there: `<runroot>/apparmor` has the version of our text and the kernel's own hash of what it made of it.

Source: securityfs of the kernel, security/apparmor/apparmorfs.c.
"""

import asyncio
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from criollo.aio import process
from criollo.errors import CriolloError, Invalid, NotFound, Unsupported, explain
from criollo.linux.files import read_limited, write_atomic
from criollo.model.pod import ProfileType, SecurityProfile
from criollo.security.apparmor_profile import NAME, Dialect, digest, text
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

UNCONFINED: Final = "unconfined"
LOAD_LIMIT_S: Final = 60

_POLICY: Final = Path("/sys/kernel/security/apparmor")
_SETTINGS: Final = Path("/etc/apparmor.d")
_PARSER_PATH: Final = "/sbin:/usr/sbin:/bin:/usr/bin"
_MAX_POLICY_BYTES: Final = 16 << 20
_MAX_HASH_BYTES: Final = 256
_HASHES: Final = ("sha256", "sha1")  # the kernel shows one of them, or none
_LINE: Final = re.compile(r"(.+) \(([a-z]+)\)")


class Parser(NamedTuple):
    """How profiles come into the kernel. `program` is apparmor_parser, empty where it is not installed."""

    program: str
    dialect: Dialect

    @classmethod
    def of_node(cls) -> "Parser":
        return cls(shutil.which("apparmor_parser", path=_PARSER_PATH) or "", Dialect(has_abi=(_SETTINGS / "abi/3.0").exists()))


async def open_apparmor(default: str, *, record: Path) -> "AppArmor":
    """The profiles of this node, with the default one loaded. Raises as `AppArmor.open`."""
    opened = AppArmor(default, record=record, parser=Parser.of_node())
    await opened.open()
    return opened


class AppArmor:
    """The profiles of a node. `record` says what was loaded; `policy` is where the kernel shows its own."""

    def __init__(self, default: str, *, record: Path, parser: Parser, policy: Path = _POLICY) -> None:
        self._default, self._record, self._parser, self._policy = default or NAME, record, parser, policy
        self._text = text(parser.dialect)
        self._seen: tuple[bytes, frozenset[str]] = (b"", frozenset())
        self._loading = asyncio.Lock()

    async def open(self) -> None:
        """See to it that the default profile is loaded.

        Raises:
            NotFound: one of the node's own is configured, and it is not loaded.
            ToolFailed, TimedOut: ours cannot be loaded.
        """
        if self._default not in (UNCONFINED, NAME) and self._default not in self.loaded():
            raise _not_loaded("apparmor_profile", self._default)
        if self._default != NAME or self._is_current():
            return
        if self._parser.program:
            await self._load()
        elif NAME in self.loaded():
            log.warning("AppArmor profile is not of this version, and there is no apparmor_parser to load it", profile=NAME)
        else:
            log.warning(
                "containers get no AppArmor profile by default: there is no apparmor_parser to load it",
                profile=NAME,
                remedy="install the package apparmor, or set apparmor_profile",
            )

    async def ready(self, asked: SecurityProfile | None) -> None:
        """Load our profile again if a container is to have it and it was taken out of the kernel meanwhile.

        Raises:
            ToolFailed, TimedOut: it cannot be loaded.
        """
        if self._name(asked) == NAME and NAME not in self.loaded() and self._parser.program:
            async with self._loading:
                if NAME not in self.loaded():
                    log.warning("AppArmor profile was unloaded by somebody; loading it again", profile=NAME)
                    await self._load()

    def choose(self, asked: SecurityProfile | None, *, privileged: bool) -> str:
        """The profile of a container by its name; empty for none.

        Raises:
            NotFound: the profile is not loaded.
            Invalid: no profile has such a name.
            Unsupported: RuntimeDefault is asked for, and nothing can load it.
        """
        if privileged:
            return ""  # as CRI-O: the runtime is told nothing
        name = self._name(asked)
        if asked is not None and asked.type is ProfileType.LOCALHOST:
            if not _is_name(name):
                raise Invalid("apparmor.localhost_ref", name, "the name of a profile, without control characters")
            if name != UNCONFINED and name not in self.loaded():
                raise _not_loaded("apparmor.localhost_ref", name)
            return name
        if name == NAME and name not in self.loaded() and not self._parser.program:
            if asked is not None:
                raise Unsupported(
                    f"cannot apply AppArmor profile RuntimeDefault (apparmor): {NAME} is not loaded, and this node has no "
                    "apparmor_parser to load it; install the package apparmor, or set apparmor_profile"
                )
            return ""  # nobody asked; a note tells of it
        if name != UNCONFINED and name not in self.loaded():
            raise _not_loaded("apparmor_profile", name)
        return name

    def loaded(self) -> frozenset[str]:
        """All profiles in the kernel. Their list is read anew when the policy has changed: its number is a read of 20 µs."""
        with explain("read the AppArmor policy of the kernel"):
            number = _read_number(self._policy / "revision")
            if not number or number != self._seen[0]:
                listed = read_all(self._policy / "profiles", _MAX_POLICY_BYTES)
                self._seen = (number, frozenset(parse_profiles(listed.decode("utf-8", "surrogateescape"))))
        return self._seen[1]

    def _name(self, asked: SecurityProfile | None) -> str:
        if asked is None or asked.type is ProfileType.RUNTIME_DEFAULT:
            return self._default
        return UNCONFINED if asked.type is ProfileType.UNCONFINED else asked.localhost_ref

    async def _load(self) -> None:
        await process.run(
            process.Program([self._parser.program, "--skip-cache", "--replace"]),
            what=f"load AppArmor profile {NAME}",
            timeout_s=LOAD_LIMIT_S,
            stdin=self._text.encode(),
        )
        if NAME not in self.loaded():
            raise Unsupported(
                f"cannot load AppArmor profile {NAME}: {self._parser.program} succeeded, and the kernel has it not"
            )
        log.info("AppArmor profile loaded", profile=NAME)
        try:
            write_atomic(self._record, self._version())
        except OSError as error:
            log.warning("AppArmor profile will be loaded again at the next start", error=error)

    def _is_current(self) -> bool:
        """Whether what the kernel has is what we loaded, of the text that we have now."""
        try:
            return NAME in self.loaded() and read_limited(self._record, 1024) == self._version()
        except (OSError, CriolloError):
            return False

    def _version(self) -> bytes:
        return f"{digest(self._text)} {self._kernels_hash()}\n".encode()

    def _kernels_hash(self) -> str:
        """The kernel's hash of the loaded profile: its directory is the name and a number that counts replacements."""
        found = [path for path in (self._policy / "policy/profiles").glob(f"{NAME}.*") if path.suffix[1:].isdigit()]
        for path in found:
            for kind in _HASHES:
                try:
                    return f"{kind}:{read_all(path / kind, _MAX_HASH_BYTES).decode('ascii', 'replace').strip()}"
                except OSError:
                    continue
        return "-"


def parse_profiles(listed: str) -> Iterator[str]:
    """The names in a list of the kernel, `NAME (MODE)` each."""
    for line in listed.split("\n"):
        match = _LINE.fullmatch(line)
        if match is not None:
            yield match[1]


def read_all(path: Path, limit_bytes: int) -> bytes:
    """A file of securityfs: its size says nothing."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        chunks = []
        while limit_bytes > 0 and (chunk := os.read(fd, min(limit_bytes, 1 << 16))):
            chunks.append(chunk)
            limit_bytes -= len(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks)


def _read_number(path: Path) -> bytes:
    """The number of the policy; empty where the kernel has none. A second read would wait for the next one."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return os.read(fd, 64)
    finally:
        os.close(fd)


def _is_name(name: str) -> bool:
    return bool(name) and name.isprintable() and len(name) < os.pathconf("/", "PC_PATH_MAX")


def _not_loaded(field: str, name: str) -> NotFound:
    return NotFound("AppArmor profile", name, f"it is not loaded on this node ({field}); load it with apparmor_parser -r FILE")
