"""The reason of an end, as kubelet shows it."""

import pytest

from criollo.containers.watch import COMPLETED, ERROR, OOM_KILLED, _reason
from criollo.monitor.exits import Exit


@pytest.mark.parametrize(
    ("code", "killed", "reason"),
    [(0, False, COMPLETED), (1, False, ERROR), (137, True, OOM_KILLED), (1, True, OOM_KILLED), (0, True, COMPLETED)],
)
def test_end_is_for_memory_only_where_it_is_a_failure(code: int, killed: bool, reason: str) -> None:
    assert _reason(Exit(code, 1, killed)) == reason
