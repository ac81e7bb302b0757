"""A process that makes and removes the same container again and again, until it is killed or its time is over: it kills itself.

python dying_store.py ROOT DRIVER SECONDS LAYER...
"""

import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.stores import Store, run

ID = "ab" * 32


async def _create_for_ever(store: Store, names: list[str], seconds: float) -> None:
    asyncio.get_running_loop().call_later(seconds, os.kill, os.getpid(), 9)
    while True:
        await store.roots.create(ID, names)
        await store.roots.remove(ID)


if __name__ == "__main__":
    root, driver, seconds, *names = sys.argv[1:]
    run(Path(root), driver, lambda store: _create_for_ever(store, names, float(seconds)))
