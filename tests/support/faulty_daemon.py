"""`crio` with faults built in: at a named point it dies by SIGKILL, the call there fails once, or a disk fills up, or both.

    python faulty_daemon.py criollo.network.cni:Cni.add:after:kill -- <arguments of crio>
    python faulty_daemon.py criollo.network.cni:Cni.add:after -- <arguments of crio>
    python faulty_daemon.py uncollected_s=2 sweep_s=0.5 -- <arguments of crio>

A point is module:function, before or after the call; one without an action waits until the file that CRIOLLO_TEST_FAULT names
holds it with one (`support.faults`). A function is found where its callers look it up. Knobs shorten times that no setting
changes. This is a launcher of tests: the product knows no faults.
"""

import contextlib
import functools
import importlib
import inspect
import itertools
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from criollo.errors import HostFailed


def arm(point: str) -> None:
    module_name, path, moment, *actions = point.split(":")
    owner: Any = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original = getattr(owner, name)
    by_file = not actions

    def strike() -> None:
        action = armed(point) if by_file else actions.pop() if actions else ""
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action in ("fill", "fill-kill"):
            fill(Path(os.environ["CRIOLLO_TEST_FILL"]))
            if action == "fill-kill":
                os.kill(os.getpid(), signal.SIGKILL)
        elif action:
            raise HostFailed(f"cannot go on at {path}: a fault was injected here")

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            if moment == "before":
                strike()
            result = await original(*args, **kwargs)
            if moment == "after":
                strike()
            return result

        setattr(owner, name, wrapped)
        return

    @functools.wraps(original)
    def plain(*args: Any, **kwargs: Any) -> Any:
        if moment == "before":
            strike()
        result = original(*args, **kwargs)
        if moment == "after":
            strike()
        return result

    setattr(owner, name, plain)


def fill(file: Path) -> None:
    """Leave no byte free on the file system of `file`, which has its name when that is so."""
    growing = file.with_name("growing")
    with open(growing, "wb", buffering=0) as out:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    out.write(bytes(size))
    growing.rename(file)


def armed(point: str) -> str:
    """What shall happen at the point, once, also where several threads come past it together."""
    file = Path(os.environ["CRIOLLO_TEST_FAULT"])
    try:
        named, _, action = file.read_text().rpartition(":")
        if named != point:
            return ""
        file.unlink()
    except FileNotFoundError:
        return ""
    return action


def tune(name: str, value: float) -> None:
    """Change a time that the product fixes."""
    from criollo.containers.context import Containers
    from criollo.daemon import patience, sweep
    from criollo.engine import containers as engine_containers
    from criollo.engine import pods as engine_pods
    from criollo.images.flush import Flush
    from criollo.linux import procfs
    from criollo.network.cni import CniOptions
    from criollo.pods import userns
    from criollo.pods.context import Pods

    if name == "uncollected_s":
        Containers.uncollected_s = Pods.uncollected_s = value
    elif name == "monitor_s":
        Containers.monitor_s = value
    elif name == "sweep_s":
        sweep.EVERY_S = value
    elif name == "recover_s":
        patience.WAIT_S = value
    elif name == "clock_jumps_s":
        jump_clock(value)
    elif name == "probe_s":
        Containers.probe_s = value
    elif name == "plugin_s":
        engine_pods.Cni = functools.partial(engine_pods.Cni, options=CniOptions(plugin_s=value))
    elif name == "boot":
        procfs.boot_id = lambda: f"boot {value:g}"
    elif name == "flushes":
        Flush.rest = Flush.rest if value else _no_flush
    elif name == "first_subid":
        userns._ranges = lambda path: ((int(value), 3 << 16),)
    elif name in ("create_limit_s", "verb_limit_s"):
        handler = engine_containers._handler
        engine_containers._handler = lambda *of: msgspec.structs.replace(handler(*of), **{name: value})
    else:
        raise ValueError(name)


async def _no_flush(flush: object) -> None:
    """The disk takes nothing before the kernel gives it."""


def jump_clock(seconds: float) -> None:
    """The time of day leaps by so much forward or back each time that somebody looks."""
    now, now_ns, leaps = time.time, time.time_ns, itertools.cycle((seconds, -seconds, 0))
    time.time = lambda: now() + next(leaps)
    time.time_ns = lambda: now_ns() + int(next(leaps) * 1e9)


def main() -> int:
    separator = sys.argv.index("--")
    # The modules must be loaded before `crio` loads them, so that the wiring finds the armed functions.
    for word in sys.argv[1:separator]:
        name, _, value = word.partition("=")
        if value:
            tune(name, float(value))
        else:
            arm(word)
    from criollo.cli.main import run

    return run(sys.argv[separator + 1 :])


if __name__ == "__main__":
    sys.exit(main())
