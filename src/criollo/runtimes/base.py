"""What a runtime handler must do, and the values that pass back and forth.

A `Runtime` acts on one container at a time and keeps no state of its own: whatever it needs later is in the request, in
the runtime's own directory or in the container's bundle, so a later daemon can go on.
"""

from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from criollo.aio.streams import Streams
from criollo.monitor.conmon import Created
from criollo.monitor.exits import Exit, Watched
from criollo.wire.runtime import State, Version

EXEC_LIMIT_BYTES: Final = 16 << 20  # per stream of an ExecSync


class CreateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A container whose bundle is written. `cgroup_parent` is the pod's; `log_path` absolute, empty for no log."""

    container_id: str
    name: str
    bundle: Path
    cgroup_parent: str = ""
    log_path: str = ""
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False


class ExecRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A command for a running container. `process` is the runtime-spec's `process` object as JSON, its terminal as `tty`
    says; `command` names it in errors. `timeout_s` is for `exec_sync`, which has no terminal; 0 means no limit. The runtime's
    own process is written into the files `joins` (of cgroups). `pid` and `pid_started` are the container's first process;
    0 where nobody needs `expect_exec`."""

    container_id: str
    bundle: Path
    process: bytes
    command: tuple[str, ...]
    tty: bool = False
    timeout_s: float = 0
    joins: tuple[Path, ...] = ()
    pid: int = 0
    pid_started: int = 0


class ExecResult(NamedTuple):
    """What a command wrote, up to `EXEC_LIMIT_BYTES` per stream; `dropped_bytes` came beyond that."""

    stdout: bytes
    stderr: bytes
    exit_code: int
    dropped_bytes: int = 0


class Probe(NamedTuple):
    """What a handler's program said of itself. `features` is the runtime-spec's document, empty where not known;
    `warning` says why this version should not run hostile images."""

    version: Version
    features: Mapping[str, object]
    warning: str


class Runtime(Protocol):
    """Drives one runtime handler. Verbs raise ToolFailed with the runtime's own words, TimedOut after their limit."""

    @property
    def name(self) -> str:
        """The handler's name."""
        ...

    async def probe(self) -> Probe:
        """Ask the program for version and features."""
        ...

    async def create(self, request: CreateRequest, ground: Coroutine[Any, Any, None] | None = None) -> Created:
        """Create a container and its monitor; after a failure nothing of either is left.

        `ground` completes the bundle: it runs while the monitor starts, and what it raises is raised.
        """
        ...

    async def start(self, container_id: str, *, has_poststart: bool) -> None:
        """Let the created container run; `has_poststart`: its spec has hooks of that kind."""
        ...

    async def kill(self, watched: Watched, number: int) -> bool:
        """Signal the first process of a container; False when it has ended already."""
        ...

    async def kill_all(self, watched: Watched) -> None:
        """SIGKILL every process of a container, also those that outlived its first one."""
        ...

    async def delete(self, container_id: str, *, cgroup_parent: str, force: bool = False) -> None:
        """Remove what is left of a container but its bundle; absence is success. `force` kills one that runs."""
        ...

    async def state(self, container_id: str) -> State | None:
        """The runtime's view; None when it knows no such container."""
        ...

    async def update(self, container_id: str, resources: bytes) -> None:
        """Change limits; `resources` is the runtime-spec's `linux.resources` as JSON."""
        ...

    async def exec_sync(self, request: ExecRequest) -> ExecResult:
        """Run a command in a running container to its end."""
        ...

    async def expect_exec(self, request: ExecRequest) -> None:
        """After an `exec_sync`: get ready for the container's next, if that pays. Returns when that is over."""
        ...

    async def exec_stream(self, request: ExecRequest, streams: Streams) -> int:
        """Run a command between a client's streams; its exit code. When cancelled, the command is ended."""
        ...

    def close(self) -> None:
        """Let go of what is kept between calls."""
        ...

    async def wait_exit(self, watched: Watched) -> Exit:
        """Return when the container has ended."""
        ...

    def cgroup(self, cgroup_parent: str, container_id: str) -> str:
        """The container's cgroup path, for `Watched.cgroup` and statistics."""
        ...
