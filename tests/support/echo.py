"""A server that sends back what it gets, until the client's end: a program, so that it can run in a pod's network.

with echoing(netns_path) as port: ...
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def echoing(netns: Path) -> Iterator[int]:
    """Serve at 127.0.0.1 of this network namespace; gives the port."""
    argv = ["nsenter", f"--net={netns}", sys.executable, __file__]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while content := await reader.read(256 << 10):
            writer.write(content)
            await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _serve() -> None:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
