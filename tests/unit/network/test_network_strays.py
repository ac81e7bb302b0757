"""network.strays: plugins that work for a pod are ended with those that they have called, and nobody else."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from criollo.network.strays import kill_strays

POD, OTHER = "a" * 64, "b" * 64


@contextmanager
def calling(pod: str) -> Iterator["subprocess.Popen[str]"]:
    """A program that works for a pod, and waits for another that it has called; both have its output."""
    script = "sleep 1000 & echo called; wait"
    environ = {**os.environ, "CNI_COMMAND": "ADD", "CNI_CONTAINERID": pod}
    child = subprocess.Popen(["sh", "-c", script], env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "called\n"
        try:
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def test_a_plugin_is_ended_with_those_it_has_called() -> None:
    with calling(POD) as child:
        assert kill_strays({POD}) == [POD, POD]
        assert child.stdout is not None
        assert child.stdout.read() == ""  # nobody has the other end any more
        assert child.wait() == -signal.SIGKILL


def test_plugins_of_other_pods_go_on() -> None:
    with calling(OTHER) as child:
        assert kill_strays({POD}) == []
        assert kill_strays(set()) == []
        assert child.poll() is None
