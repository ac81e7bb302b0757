"""`crio` with one fault built in: at a named point it dies by SIGKILL, or the call there fails once.

    python faulty_daemon.py criollo.network.cni:Cni.add:after:kill -- <arguments of crio>

The point is module:function, before or after the call. This is a launcher of tests: the product knows no faults.
"""

import functools
import importlib
import inspect
import os
import signal
import sys
from typing import Any

from criollo.errors import HostFailed


def arm(point: str) -> None:
    module_name, path, moment, action = point.split(":")
    owner: Any = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original = getattr(owner, name)
    state = {"armed": True}

    def strike() -> None:
        if not state["armed"]:
            return
        state["armed"] = False
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
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


def main() -> int:
    separator = sys.argv.index("--")
    # The modules must be loaded before `crio` loads them, so that the wiring finds the armed functions.
    for point in sys.argv[1:separator]:
        arm(point)
    from criollo.cli.main import run

    return run(sys.argv[separator + 1 :])


if __name__ == "__main__":
    sys.exit(main())
