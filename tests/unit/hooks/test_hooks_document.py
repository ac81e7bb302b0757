"""A hook file: both schemas, and the containers it means."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.hooks.document import ENV, HookFile, read_hook

ALWAYS: dict[str, Any] = {"version": "1.0.0", "hook": {"path": "/h"}, "when": {"always": True}, "stages": ["prestart"]}


def hook(document: dict[str, Any]) -> HookFile:
    return read_hook(json.dumps(document).encode(), "/d/f.json")


def holds(
    when: dict[str, Any], *, annotations: dict[str, str] | None = None, command: str = "/bin/sh", binds: bool = False
) -> bool:
    return hook({**ALWAYS, "when": when}).when.holds(annotations or {}, command, has_bind_mounts=binds)


def test_a_hook_is_read_with_all_its_fields() -> None:
    found = hook(
        {
            **ALWAYS,
            "hook": {"path": "/h", "args": ["h", "1"], "env": ["A=b"], "timeout": 9},
            "stages": ["poststop", "createContainer"],
        }
    )
    assert (found.hook.path, found.hook.args, found.hook.env, found.hook.timeout) == ("/h", ("h", "1"), ("A=b",), 9)
    assert found.stages == ("poststop", "create_container")


def test_a_hook_inherits_no_environment() -> None:
    assert hook(ALWAYS).hook.env == ENV
    assert hook({**ALWAYS, "hook": {"path": "/h", "env": []}}).hook.env == ()


def test_prestart_is_the_old_name_of_create_runtime() -> None:
    assert hook({**ALWAYS, "stages": ["prestart", "createRuntime"]}).stages == ("create_runtime",)


def test_without_conditions_no_container_is_meant() -> None:
    assert not holds({})


def test_all_conditions_must_hold() -> None:
    when = {"annotations": {"^a$": "^1$", "^b$": "2"}, "commands": ["/sh$", "x"], "hasBindMounts": True}
    fits: dict[str, Any] = {"annotations": {"a": "1", "b": "12"}, "binds": True}
    assert holds(when, **fits)
    assert not holds(when, **{**fits, "binds": False})
    assert not holds(when, **fits, command="/bin/true")
    assert not holds(when, **{**fits, "annotations": {"a": "1"}})
    assert not holds({"always": False, "commands": [".*"]})
    assert not holds({"hasBindMounts": False})


def test_the_first_schema_wants_one_condition() -> None:
    found = hook({"hook": "/h", "arguments": ["x"], "stage": ["poststart"], "cmds": ["/sh$"], "annotation": ["^yes$"]})
    assert (found.hook.args, found.stages) == (("/h", "x"), ("poststart",))
    assert found.when.holds({}, "/bin/sh", has_bind_mounts=False)
    assert found.when.holds({"any": "yes"}, "/x", has_bind_mounts=False)
    assert not found.when.holds({"any": "no"}, "/x", has_bind_mounts=True)
    binds = hook({"version": "0.1.0", "hook": "/h", "stages": ["prestart"], "hasbindmounts": True})
    assert binds.when.holds({}, "/x", has_bind_mounts=True)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({**ALWAYS, "version": "2.0.0"}, "version"),
        ({**ALWAYS, "hook": {"path": "h"}}, "hook.path"),
        ({**ALWAYS, "hook": {}}, "path"),
        ({**ALWAYS, "hook": {"path": "/h", "env": ["x"]}}, "env"),
        ({**ALWAYS, "hook": {"path": "/h", "timeout": -1}}, "timeout"),
        ({**ALWAYS, "stages": ["never"]}, "stages"),
        ({**ALWAYS, "stages": None}, "stages"),
        ({**ALWAYS, "when": {"commands": ["("]}}, r"commands\[0\]"),
        ({**ALWAYS, "when": {"annotations": {"(": ""}}}, "annotations"),
        ({"hook": "/h"}, "stages"),
        ({"hook": "/h", "stage": [], "stages": []}, "stages"),
        ({"stages": ["prestart"]}, "hook"),
    ],
)
def test_a_broken_file_is_refused_by_its_field(document: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid, match=field):
        hook(document)


KEYS = st.sampled_from(["version", "hook", "stages", "when", "path"])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.text(max_size=4), lambda inner: st.dictionaries(KEYS, inner) | st.lists(inner, max_size=2)
)


@given(st.binary(max_size=100) | DOCUMENTS.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_hook_or_refused(raw: bytes) -> None:
    try:
        found = read_hook(raw, "f")
    except Invalid:
        return
    assert found.hook.path.startswith("/")
