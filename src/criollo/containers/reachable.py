"""Files of the node that are read for a container: one on a file system that is dead must not keep a thread for ever."""

from criollo.aio import threads
from criollo.containers.context import Containers
from criollo.errors import NotFound
from criollo.linux.near import is_near


async def check_answers(containers: Containers, path: str, what: str) -> None:
    """See to it that a look at a path comes back; what is on the node's own disks does.

    Raises:
        TimedOut: it hangs.
        NotFound: there is nothing, where only somebody else could tell.
    """
    if not await threads.files(is_near, path):
        found = await containers.workers.probe(path, containers.probe_s)
        if found.kind == "missing":
            raise NotFound(what, path, f"{path} is not there")
