"""KUBENSMNT: the mount namespace that the node's administrator has made for kubelet and its runtime.

Source: github.com/containers/kubensmnt; setns(2): only a process with one thread may change it.
"""

import os
from collections.abc import Mapping
from typing import Final

from criollo.linux import libc
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

VARIABLE: Final = "KUBENSMNT"


def join(environ: Mapping[str, str]) -> bool:
    """Enter the namespace bound at the path in the variable; what is no such namespace is told, and the daemon goes on."""
    path = environ.get(VARIABLE, "")
    if not path:
        return False
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            libc.setns(fd, libc.CLONE_NEWNS)
        finally:
            os.close(fd)
    except OSError as error:
        log.warning("cannot join the mount namespace of KUBENSMNT; going on in our own", path=path, cause=error)
        return False
    log.info("Joined mount namespace", path=path)
    return True
