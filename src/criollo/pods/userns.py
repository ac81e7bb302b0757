"""User namespaces that nobody but an annotation or the configuration asks for: the pod's request, with the mappings chosen.

What is chosen stands in the pod's row, so it stays over restarts, and every row counts as taken until it is gone.
"""

from pathlib import Path
from typing import Final

import msgspec

from criollo.aio import threads
from criollo.errors import explain
from criollo.linux.files import read_limited
from criollo.model.ids import PodId
from criollo.model.pod import Pod, PodConfig, PodState
from criollo.pods.context import Pods
from criollo.security.userns import ANNOTATION, NodeIds, decide, parse, parse_ranges
from criollo.specgen.asked import find

SUBUID: Final = Path("/etc/subuid")
SUBGID: Final = Path("/etc/subgid")

_MAX_BYTES: Final = 1 << 20


async def chosen(pods: Pods, config: PodConfig, handler: str) -> PodConfig:
    """The request with its user namespace; the caller writes the row before anything else is awaited.

    Raises:
        Invalid, Unsupported, Exhausted: as `security.userns.decide`.
    """
    asks = Pod(id=PodId(""), name="", config=config, handler=handler, state=PodState.CREATING, created_ns=0)
    text = find(config.annotations, ANNOTATION, pods.containers.defaults_for(asks).allowed_annotations)
    node = pods.userns or NodeIds()
    if text is not None:
        uids, gids = await threads.files(_ranges, SUBUID), await threads.files(_ranges, SUBGID)
        node = node._replace(uid_ranges=uids, gid_ranges=gids)
    used = (each.user_namespace for each in pods.state.pods)
    user = decide(text, config.security, node, (each for each in used if each is not None))
    security = config.security
    if user is security.namespaces.user:
        return config
    spaces = msgspec.structs.replace(security.namespaces, user=user)
    security = msgspec.structs.replace(security, namespaces=spaces)
    if text is not None and parse(text).maps_to_root:  # the pod's user is root inside
        security = msgspec.structs.replace(
            security,
            run_as_user=None if security.run_as_user is None else 0,
            run_as_group=None if security.run_as_group is None else 0,
        )
    return msgspec.structs.replace(config, security=security)


def _ranges(path: Path) -> tuple[tuple[int, int], ...]:
    with explain(f"read {path}"):
        try:
            return parse_ranges(read_limited(path, _MAX_BYTES))
        except FileNotFoundError:
            return ()
