"""Network interfaces of the calling thread's network namespace: so far only up and down of a link, by ioctl.

Source: netdevice(7), SIOCGIFFLAGS and SIOCSIFFLAGS.
"""

import fcntl
import socket
import struct
from typing import Final

_SIOCGIFFLAGS: Final = 0x8913  # linux/sockios.h
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1  # linux/if.h
_IFREQ: Final = "16sH22x"  # struct ifreq: name, flags, rest of the union


def set_up(name: str) -> None:
    """Bring a link up; safe to repeat.

    Raises:
        OSError: no such link, or not allowed.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        asked = struct.pack(_IFREQ, name.encode(), 0)
        flags = struct.unpack(_IFREQ, fcntl.ioctl(control, _SIOCGIFFLAGS, asked))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack(_IFREQ, name.encode(), flags | _IFF_UP))
