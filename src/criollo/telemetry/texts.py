"""Texts that tools and the tests of other projects look for in our log, word for word as CRI-O has them."""

from typing import Final

STOP_TIMED_OUT: Final = "Stopping container {} with stop signal({}) timed out. Killing..."  # id, number
STOP_SIGNAL: Final = "Override stop signal to {}"  # name; debug
CREATION_TIMEOUT: Final = "Container creation timeout ({}s)"
CDI_ERRORS: Final = "CDI registry has errors"
MONITOR_STOPPED: Final = "Conmon for container {} is stopped, although the container is running"  # id
