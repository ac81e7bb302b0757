"""Which runtime a handler's name means."""

import pytest

from criollo.errors import NotFound
from criollo.runtimes.handlers import Handlers
from criollo.runtimes.oci import OciRuntime


def test_empty_name_is_the_default() -> None:
    crun, runc = object.__new__(OciRuntime), object.__new__(OciRuntime)
    handlers = Handlers({"crun": crun, "runc": runc}, "runc", {})
    assert handlers.get("") is runc
    assert handlers.get("crun") is crun


def test_unknown_name_tells_the_known_ones() -> None:
    handlers = Handlers({"crun": object.__new__(OciRuntime)}, "crun", {})
    with pytest.raises(NotFound, match="runtime handler kata not found: this node has crun"):
        handlers.get("kata")


def test_others_take_the_place_and_the_old_ones_are_closed_at_the_end() -> None:
    closed: list[str] = []

    class Closing(OciRuntime):
        def __init__(self, name: str) -> None:
            self.said = name

        def close(self) -> None:
            closed.append(self.said)

    handlers = Handlers({"crun": Closing("old")}, "crun", {})
    handlers.become(Handlers({"kata": Closing("new")}, "kata", {}))
    assert (handlers.names(), handlers.default, closed) == (["kata"], "kata", [])
    handlers.close()
    assert closed == ["new", "old"]
