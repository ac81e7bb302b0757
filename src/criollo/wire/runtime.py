"""What OCI runtimes print: errors, `--version`, `features`, `state`. Pure; nothing here trusts its input.

Errors come as plain text (crun), as logfmt (`time="…" level=error msg="…"`, runc) or as JSON lines (either, with
`--log-format json`). A person should read only the message.
Source: OCI runtime-spec, State and Features; crun and runc output as of crun 1.8-1.28, runc 1.1-1.4.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from criollo.wire.conmon import MAX_PID, Garbled

MAX_STATE: Final = 1 << 20
MAX_FEATURES: Final = 1 << 20
_LOGFMT: Final = re.compile(r'\blevel=(\w+) msg=("(?:[^"\\]|\\.)*"|\S+)')
_VERSION: Final = re.compile(r"^(\S+) version v?([0-9]{1,6})\.([0-9]{1,6})(?:\.([0-9]{1,6}))?\S*$", re.MULTILINE)
_GONE: Final = re.compile(
    r"does not exist|/status`?: No such file or directory|cannot open directory '.*': No such file or directory"
)
_BAD_LEVELS: Final = frozenset({"error", "fatal", "panic"})
# Last fixes of published holes: below these a container may reach the host (docs/threat-model.md, R14).
FIXED: Final[dict[str, tuple[tuple[int, ...], ...]]] = {"crun": ((1, 28),), "runc": ((1, 3, 6), (1, 4, 3))}


class Status(StrEnum):
    """OCI runtime-spec, State; runc and crun add `paused`."""

    CREATING = "creating"
    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"


class State(NamedTuple):
    status: Status
    pid: int  # 0 when there is no process


_READ: Final = ("crun", "runc")


class Version(NamedTuple):
    """`name` is what the program calls itself; `runsc version release-20240729.0` and others have no numbers: ()."""

    name: str
    numbers: tuple[int, ...]
    text: str


class Mounting(NamedTuple):
    """What a runtime can do with mounts; the kernel must be able as well."""

    recursive_read_only: bool = False  # the option rro
    id_mapped: bool = False  # uidMappings and gidMappings of a mount


class _Idmap(msgspec.Struct):
    enabled: bool | None = None


class _Extensions(msgspec.Struct):
    idmap: _Idmap | None = None


class _LinuxFeatures(msgspec.Struct, rename="camel"):
    mount_extensions: _Extensions | None = None


class _Features(msgspec.Struct, rename="camel"):
    mount_options: list[str] | None = None
    linux: _LinuxFeatures | None = None


class _Line(msgspec.Struct):
    msg: str = ""
    level: str = ""


class _Exited(msgspec.Struct):
    msg: Literal["process exited"]
    pid: int
    status: Annotated[int, msgspec.Meta(ge=0, le=255)]


class _State(msgspec.Struct):
    id: str
    status: Status
    pid: int = 0


def readable(output: bytes | str) -> str:
    """The message in a runtime's error output: the last error it logged, else what it wrote."""
    text = output.decode("utf-8", "replace") if isinstance(output, bytes) else output
    found = ""
    plain = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        level, message = _logged(line)
        if not level:
            plain.append(line)
        elif level in _BAD_LEVELS and message:
            found = message
    return found or "\n".join(plain)


def exit_told(line: bytes) -> int | None:
    """The status in a line of runc's log that tells of a child's end, 128 and more for a signal; None for any other line."""
    if b'"process exited"' not in line:
        return None
    try:
        return msgspec.json.decode(line, type=_Exited).status
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def is_gone(message: str) -> bool:
    """Whether a runtime's error says that it knows no such container."""
    return _GONE.search(message) is not None


def parse_state(output: bytes, container_id: str) -> State:
    """The answer to `state`.

    Raises:
        Garbled: too long, no JSON, another container's, an unknown status, an impossible pid.
    """
    if len(output) > MAX_STATE:
        raise Garbled(f"state longer than {MAX_STATE} bytes")
    try:
        state = msgspec.json.decode(output, type=_State)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Garbled(f"no state: {error}") from None
    if state.id != container_id:
        raise Garbled(f"state of another container: {state.id[:80]!r}")
    if state.pid and not 2 <= state.pid <= MAX_PID:
        raise Garbled(f"state with pid {state.pid}")
    return State(state.status, state.pid)


def parse_version(output: bytes) -> Version:
    """The answer to `--version`: its first line, in numbers where it has them."""
    text = output[:4096].decode("utf-8", "replace")
    first = text.strip().partition("\n")[0][:200]
    if (match := _VERSION.search(text)) is None:
        return Version(first.partition(" ")[0], (), first)
    name, *numbers = match.groups()
    return Version(name, tuple(int(number) for number in numbers if number is not None), first)


def known_bad(version: Version) -> str:
    """Why this version is not safe against hostile images; empty when nothing is known."""
    fixes = FIXED.get(version.name)
    if not fixes or not version.numbers:
        return ""
    own_line = [fix for fix in fixes if fix[:2] == version.numbers[:2] and len(fix) > 2]
    if version.numbers >= (own_line[0] if own_line else fixes[-1]):
        return ""
    wanted = " or ".join(".".join(map(str, fix)) for fix in fixes)
    return f"{version.name} {'.'.join(map(str, version.numbers))} has published holes; use {wanted} or newer"


def parse_features(output: bytes) -> dict[str, object]:
    """The answer to `features`.

    Raises:
        Garbled: too long, or no JSON object.
    """
    if len(output) > MAX_FEATURES:
        raise Garbled(f"features longer than {MAX_FEATURES} bytes")
    try:
        return msgspec.json.decode(output, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Garbled(f"no features: {error}") from None


def mounting(version: Version, features: Mapping[str, object]) -> Mounting:
    """What a runtime's features say of mounts; of one without that document what is known of its version.

    Source: OCI runtime-spec, features.md and features-linux.md; crun's NEWS: rro since 1.4, `features` since 1.8.6.
    """
    if not features:
        return Mounting(recursive_read_only=version.name == "crun" and version.numbers >= (1, 4))
    try:
        said = msgspec.convert(features, type=_Features)
    except msgspec.ValidationError:
        return Mounting()
    extensions = said.linux.mount_extensions if said.linux else None
    idmap = extensions.idmap if extensions else None
    return Mounting("rro" in (said.mount_options or ()), bool(idmap and idmap.enabled))


def moves_interfaces(features: Mapping[str, object]) -> bool:
    """Whether a runtime knows linux.netDevices."""
    linux = features.get("linux")
    devices = linux.get("netDevices") if isinstance(linux, dict) else None
    return isinstance(devices, dict) and devices.get("enabled") is True


def unsafe_annotations(features: Mapping[str, object]) -> tuple[str, ...]:
    """The annotations that change what the runtime does, as it says; a name with a final dot stands for all below it."""
    found = features.get("potentiallyUnsafeConfigAnnotations")
    return tuple(name for name in found if isinstance(name, str) and name) if isinstance(found, list) else ()


def has_known_words(version: Version, features: Mapping[str, object]) -> bool:
    """Whether one knows which annotations a runtime takes for orders: it says so, or it is one whose source we have read."""
    return version.name in _READ or isinstance(features.get("potentiallyUnsafeConfigAnnotations"), list)


def repeats_mappings(version: Version) -> bool:
    """Whether a spec that names a user namespace to join must have its mappings too.

    runc before 1.2 finds the root inside by them, and crun does; later runcs ask the namespace, and warn in the container's
    log when they find both.
    """
    return version.name != "runc" or version.numbers < (1, 2)


def precompiles_seccomp(version: Version) -> bool:
    """Whether a runtime takes a seccomp filter as program, and is slow without: crun compiles a profile for each container.

    crun 1.14 and later keep what they compiled; before, only builds with libgcrypt do.
    """
    return version.name == "crun" and (1, 0) <= version.numbers < (1, 14)


def _logged(line: str) -> tuple[str, str]:
    """Level and message of a log line; two empty texts when it is none."""
    if line.startswith("{"):
        try:
            found = msgspec.json.decode(line, type=_Line)
        except (msgspec.DecodeError, RecursionError):
            return "", ""
        return found.level, found.msg
    if (match := _LOGFMT.search(line)) is None:
        return "", ""
    level, message = match.groups()
    if message.startswith('"'):
        message = re.sub(r"\\(.)", lambda escape: {"n": "\n", "t": "\t"}.get(escape[1], escape[1]), message[1:-1])
    return level, message
