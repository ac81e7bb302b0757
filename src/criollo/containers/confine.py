"""How the processes of a container are confined beyond capabilities: the choice, for the builder of specs."""

from criollo.containers.context import Containers
from criollo.model.container import ContainerSecurity
from criollo.model.pod import PodSecurity
from criollo.specgen.request import Confinement


def confinement(containers: Containers, security: ContainerSecurity | PodSecurity, handler: str) -> Confinement:
    """What applies to who asked for `security`. Reads a file where a profile of the node is asked for: not for the loop.

    Raises:
        NotFound, Invalid, Unsupported: the profile is not there, or cannot be used; the message has the field.
    """
    chosen = containers.seccomp.choose(
        security.seccomp, privileged=security.privileged, handler=handler or containers.handlers.default
    )
    return Confinement(seccomp=chosen, seccomp_done=True)
