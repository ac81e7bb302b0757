"""Which runtime a handler's name means."""

import pytest

from criollo.errors import NotFound
from criollo.runtimes.handlers import Handlers, find_program
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


def test_missing_program_is_named() -> None:
    with pytest.raises(NotFound, match="set runtime_path"):
        find_program("/nonexistent/crun", "crun")
