"""Profile files of others: what they mean for a container, and what is refused with its place."""

import contextlib
import errno
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid, Unsupported
from criollo.oci.runtime_spec import Seccomp
from criollo.security.seccomp_profile import MAX_FILE_BYTES, parse
from criollo.security.seccomp_rules import Target

TARGET = Target(capabilities=frozenset({"CAP_CHOWN"}), machine="x86_64", kernel=(6, 1))


def compiled(document: Any, target: Target = TARGET) -> Seccomp:
    return parse(json.dumps(document).encode(), "p").compile(target)


def rule(*names: str, action: str = "SCMP_ACT_ALLOW", **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": action, **more}


def holding(**condition: Any) -> list[str]:
    """Which of two rules hold: one that includes a condition, one that excludes it."""
    rules = [rule("included", includes=condition), rule("excluded", excludes=condition)]
    return [name for one in compiled({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}).syscalls for name in one.names]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"caps": ["CAP_CHOWN"]}, True),
        ({"caps": ["CAP_SYS_ADMIN"]}, False),
        ({"arches": ["amd64", "x32"]}, True),
        ({"arches": ["arm64"]}, False),
        ({"minKernel": "4.8"}, True),
        ({"minKernel": "6.1"}, True),
        ({"minKernel": "6.2.1"}, False),
    ],
)
def test_conditions_let_rules_in_and_keep_them_out(condition: dict[str, Any], holds: bool) -> None:
    assert holding(**condition) == (["included"] if holds else ["excluded"])


def test_includes_need_all_and_excludes_any() -> None:
    assert holding(caps=["CAP_CHOWN", "CAP_SYS_ADMIN"]) == []
    assert holding(caps=["CAP_CHOWN"], minKernel="9.0") == []


def test_plain_profile_is_taken_word_for_word() -> None:
    arguments = [{"index": 0, "value": 7, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]
    made = compiled(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
                rule("a", "b", action="SCMP_ACT_ERRNO", errnoRet=5, args=arguments),
                {"name": "c", "action": "SCMP_ACT_LOG"},
            ],
            "$comment": "unknown keys are passed over",
        }
    )
    assert (made.default_errno_ret, made.architectures, made.flags) == (38, ("SCMP_ARCH_X86_64",), ("SECCOMP_FILTER_FLAG_LOG",))
    first, second = made.syscalls
    assert (first.names, first.errno_ret, first.args[0].value_two) == (("a", "b"), 5, 3)
    assert (second.names, second.errno_ret) == (("c",), None)


def test_names_of_errnos_win_over_numbers_and_nulls_are_nothing() -> None:
    made = compiled(
        {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "ENOSYS", "defaultErrnoRet": 1, "syscalls": None, "flags": None}
    )
    assert (made.default_errno_ret, made.syscalls) == (errno.ENOSYS, ())


@pytest.mark.parametrize(
    ("machine", "expected"), [("x86_64", ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86")), ("riscv64", ("SCMP_ARCH_RISCV64",))]
)
def test_map_of_architectures_is_of_the_machine(machine: str, expected: tuple[str, ...]) -> None:
    document = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    }
    target = Target(capabilities=frozenset(), machine=machine, kernel=(6, 1))
    assert compiled(document, target).architectures == expected


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"defaultAction": "SCMP_ACT_MAYBE"}, "p.defaultAction"),
        ({"defaultAction": ""}, "p.defaultAction"),
        ({"DefaultAction": "SCMP_ACT_ERRNO"}, "p"),
        ({"flags": ["X"]}, "p.flags"),
        ({"architectures": ["amd64"]}, "p.architectures"),
        ({"architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}, "p.archMap"),
        ({"syscalls": [rule()]}, r"p.syscalls\[0\].names"),
        ({"syscalls": [rule("a", name="b")]}, r"p.syscalls\[0\].names"),
        ({"syscalls": [rule("a b")]}, r"p.syscalls\[0\].names"),
        ({"syscalls": [rule("a", action="X")]}, r"p.syscalls\[0\].action"),
        ({"syscalls": [rule("a", errnoRet=5)]}, r"p.syscalls\[0\].action"),
        ({"syscalls": [rule("a", action="SCMP_ACT_ERRNO", errnoRet=4096)]}, r"p.syscalls\[0\].action"),
        ({"syscalls": [rule("a", action="SCMP_ACT_ERRNO", errno="ENOTHING")]}, r"p.syscalls\[0\].action"),
        ({"syscalls": [rule("a", args=[{"index": 6, "op": "SCMP_CMP_EQ"}])]}, r"args.index"),
        ({"syscalls": [rule("a", args=[{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}])]}, r"args.value"),
        ({"syscalls": [rule("a", args=[{"index": 0, "op": "="}])]}, r"args.op"),
        ({"syscalls": [rule("a", args=[{"index": 0, "op": "SCMP_CMP_EQ"}] * 7)]}, r"args"),
        ({"syscalls": [rule("a", includes={"minKernel": "new"})]}, r"includes.minKernel"),
        ({"syscalls": [rule(*["a"] * 20_001)]}, "p.syscalls"),
        ({"syscalls": 7}, "p"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(change: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid, match=field):
        compiled({"defaultAction": "SCMP_ACT_ALLOW", **change})


@pytest.mark.parametrize(
    "change",
    [{"listenerPath": "/run/x"}, {"syscalls": [rule("a", action="SCMP_ACT_NOTIFY")]}, {"defaultAction": "SCMP_ACT_NOTIFY"}],
)
def test_listeners_of_others_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match="another program"):
        compiled({"defaultAction": "SCMP_ACT_ALLOW", **change})


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"\xff", b'{"defaultAction":"SCMP_ACT_ALLOW","defaultAction":"SCMP_ACT_LOG"}']
)
def test_what_is_no_document_is_refused(raw: bytes) -> None:
    with pytest.raises(Invalid, match="p"):
        parse(raw, "p")


def test_file_has_a_cap() -> None:
    with pytest.raises(Invalid):
        parse(b" " * MAX_FILE_BYTES + b"{}", "p")


words = st.text(max_size=8) | st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_CMP_EQ", "read", "CAP_CHOWN", "4.8"])
keys = st.sampled_from(
    (
        "names name action errnoRet errno args index value valueTwo op includes excludes caps arches minKernel syscalls flags "
        "archMap architectures defaultAction"
    ).split()
)
scalars = st.none() | st.booleans() | st.integers() | words
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5), max_leaves=20
)


@given(
    st.dictionaries(
        st.sampled_from(["defaultAction", "syscalls", "flags", "archMap", "architectures", "defaultErrnoRet"]), values
    )
)
def test_any_document_is_a_profile_or_refused(document: dict[str, Any]) -> None:
    with contextlib.suppress(Invalid, Unsupported):
        compiled({"defaultAction": "SCMP_ACT_ALLOW", **document})


@given(st.binary(max_size=300))
def test_any_bytes_are_a_profile_or_refused(raw: bytes) -> None:
    with contextlib.suppress(Invalid, Unsupported):
        parse(raw, "p")
