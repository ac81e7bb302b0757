"""A network plugin and a runtime that do as the real ones do, unless a test has laid a script in their way.

    hooks = Hooks(directory)                     # outside the daemon's place, made before the daemon
    with hooks.daemon(directory, registry, {}) as daemon: ...
    with hooks.script("ADD", "exit 1"): ...      # sh, run before the real program

Runtime handlers: `hooked` is crun; `stranger` is crun under a name that the daemon does not know, so that it must ask the
program to kill; hooks of both are named after the verb.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from support.daemon import CNI_BIN, Daemon, running_daemon, wait_for
from support.registry import Registry

# A script may go between a look and its reading: nothing is read then.
_PLUGIN = """#!/bin/sh
if [ -e {hooks}/$CNI_COMMAND ]; then eval "$(cat {hooks}/$CNI_COMMAND 2>/dev/null)"; fi
exec {bin}/bridge
"""
_RUNTIME = """#!/bin/sh
for word; do
  case $word in
    --version) {version};;
    -*) ;;
    *) if [ -e {hooks}/$word ]; then eval "$(cat {hooks}/$word 2>/dev/null)"; fi; break;;
  esac
done
exec /usr/bin/crun "$@"
"""


class Hooks:
    """Scripts by name (a CNI command or a runtime verb), and the programs that run them."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.hooks = directory, directory / "hooks"
        self.plugins = directory / "plugins"
        self._gates = 0
        self.hooks.mkdir(parents=True)
        self.plugins.mkdir()
        self._program(self.plugins / "hooked", _PLUGIN.format(hooks=self.hooks, bin=CNI_BIN))
        self._program(directory / "hooked", _RUNTIME.format(hooks=self.hooks, version=":"))
        strange = 'echo "stranger version 1.0"; exit 0'
        self._program(directory / "stranger", _RUNTIME.format(hooks=self.hooks, version=strange))

    def _settings(self) -> dict[str, Any]:
        """What the daemon's configuration needs to find the programs."""
        keys: dict[str, Any] = {"crio.network.plugin_dirs": [CNI_BIN, str(self.plugins)]}
        for name in ("hooked", "stranger"):
            table = f"crio.runtime.runtimes.{name}"
            keys |= {
                f"{table}.runtime_path": str(self.directory / name),
                f"{table}.runtime_root": str(self.directory / "state"),
            }
        return keys

    @contextlib.contextmanager
    def daemon(
        self,
        directory: Path,
        registry: Registry,
        tuned: Mapping[str, float],
        *,
        settings: Mapping[str, Any] | None = None,
        points: Sequence[str] = (),
    ) -> Iterator[Daemon]:
        """A daemon whose network calls the hooked plugin in place of bridge; it has pulled busybox."""
        options = {
            "settings": {**self._settings(), **(settings or {})},
            "registries": registry.registries_conf(),
            "bridge_plugin": "hooked",
        }
        with running_daemon(directory, tuned=tuned, points=points, **options) as running:
            running.pull(registry.reference("busybox"))
            yield running

    @contextlib.contextmanager
    def script(self, name: str, text: str) -> Iterator[None]:
        """Run `text` before every call of that name, while the block runs."""
        path = self.hooks / name
        staged = self.directory / f"{name}.new"
        staged.write_text(text + "\n")
        staged.rename(path)
        try:
            yield
        finally:
            path.unlink()

    @contextlib.contextmanager
    def gate(self, name: str) -> Iterator["Gate"]:
        """Hold every call of that name until the gate is opened; it opens at the end of the block in any case."""
        self._gates += 1  # a name of its own: who waits at an older one must still see it open
        gate = Gate(self.directory / f"gate-{self._gates}")
        with self.script(name, f"touch {gate.reached}; while [ ! -e {gate.opened} ]; do sleep 0.02; done"):
            try:
                yield gate
            finally:
                gate.open()

    @staticmethod
    def _program(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)


class Gate:
    """Where a hooked program waits."""

    def __init__(self, path: Path) -> None:
        self.reached, self.opened = path.with_suffix(".reached"), path.with_suffix(".opened")

    def wait_reached(self) -> None:
        wait_for(self.reached.exists)

    def open(self) -> None:
        self.opened.touch()
