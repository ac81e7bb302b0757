"""[crio.profile]: a look into the daemon itself. CRI-O has these as flags only, by the same names."""

from typing import Annotated

from criollo.config.keys import Key, Table
from criollo.config.telemetry import LAST_PORT
from criollo.errors import Invalid


class Profile(Table, frozen=True, kw_only=True):
    """Profiles of the daemon: [crio.profile]."""

    profile: Annotated[bool, Key("Serve profiles at http://127.0.0.1:<profile_port>/debug/pprof/.")] = False
    profile_port: Annotated[int, Key("The port for that; 0: any free one, which the log names.")] = 6060
    profile_cpu: Annotated[
        str, Key("Take samples of all stacks from start to end, and write them to this file at the end.", absolute=True)
    ] = ""
    profile_mem: Annotated[
        str, Key("Trace allocations, and write what is in memory to this file at the end.", absolute=True)
    ] = ""
    enable_profile_unix_socket: Annotated[
        bool, Key("Serve /debug/pprof/ on the daemon's own socket as well.", env="ENABLE_PROFILE_UNIX_SOCKET")
    ] = False

    @property
    def is_asked_for(self) -> bool:
        """Whether something is to be done beside serving on the daemon's socket."""
        return self.profile or bool(self.profile_cpu) or bool(self.profile_mem)


def check_profile(field: str, profile: Profile) -> None:
    """Raises Invalid; `field` names the port."""
    if not 0 <= profile.profile_port <= LAST_PORT:
        raise Invalid(field, profile.profile_port, f"0 to {LAST_PORT}")
