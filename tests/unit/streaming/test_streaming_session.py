"""How a status is told, by version of the protocol."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.streaming.session import Status, encode


def test_success_is_said_since_version_four() -> None:
    assert json.loads(encode(Status(), 4)) == {"metadata": {}, "status": "Success"}
    assert encode(Status(), 3) == b""


def test_exit_code_is_a_cause() -> None:
    document = json.loads(encode(Status(exit_code=7), 5))
    assert (document["status"], document["reason"]) == ("Failure", "NonZeroExitCode")
    assert document["details"] == {"causes": [{"reason": "ExitCode", "message": "7"}]}


@pytest.mark.parametrize("version", [1, 2, 3])
def test_old_versions_get_text(version: int) -> None:
    assert encode(Status(exit_code=7), version) == b"command terminated with non-zero exit code: 7"
    assert encode(Status(failure="no such program"), version) == b"no such program"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_failure_is_told_as_it_is(failure: str) -> None:
    document = json.loads(encode(Status(failure=failure), 4))
    assert document["message"] == f"Internal error occurred: {failure}"
    assert (document["reason"], document["code"]) == ("InternalError", 500)
