import errno

import pytest
from support.bpf import X86, X86_64, decide

from criollo.linux import seccomp
from criollo.linux.seccomp import Comparison, Rule

pytestmark = pytest.mark.skipif(not seccomp.is_available(), reason="libseccomp2 is not installed")

ALLOW = Rule("", "SCMP_ACT_ALLOW")
READ, WRITE = 0, 1  # asm/unistd_64.h


def program(*rules: Rule, default: Rule = ALLOW, machines: tuple[str, ...] = ()) -> bytes:
    return seccomp.program(default, machines, rules)


def test_rules_decide_and_the_rest_is_the_default() -> None:
    made = program(Rule("read", "SCMP_ACT_ERRNO", errno.EIO))
    assert (decide(made, X86_64, READ), decide(made, X86_64, WRITE)) == ("EIO", "ALLOW")


def test_comparisons_of_different_arguments_hold_together_and_of_one_apart() -> None:
    refuse = Rule("write", "SCMP_ACT_ERRNO", errno.EIO)
    both = program(refuse._replace(comparisons=(Comparison(0, "SCMP_CMP_EQ", 1), Comparison(2, "SCMP_CMP_GT", 5))))
    assert (decide(both, X86_64, WRITE, 1, 0, 6), decide(both, X86_64, WRITE, 1, 0, 5)) == ("EIO", "ALLOW")
    either = program(refuse._replace(comparisons=(Comparison(0, "SCMP_CMP_EQ", 1), Comparison(0, "SCMP_CMP_EQ", 2))))
    assert [decide(either, X86_64, WRITE, fd) for fd in (1, 2, 3)] == ["EIO", "EIO", "ALLOW"]


def test_further_architectures_are_judged_and_others_are_not_let_in() -> None:
    made = program(Rule("write", "SCMP_ACT_ERRNO"), machines=("SCMP_ARCH_X86_64", "SCMP_ARCH_X86"))
    assert decide(made, X86, 4) == "EPERM"
    assert decide(program(Rule("write", "SCMP_ACT_ERRNO")), X86, 4) != "ALLOW"


def test_calls_that_nobody_knows_are_left_out() -> None:
    assert not seccomp.is_known("no_such_call")
    assert seccomp.is_known("read")
    assert program(Rule("no_such_call", "SCMP_ACT_ERRNO")) == program()


@pytest.mark.parametrize("rule", [Rule("read", "SCMP_ACT_NOTIFY"), Rule("read", "X")])
def test_other_actions_are_refused(rule: Rule) -> None:
    with pytest.raises(OSError, match="action"):
        program(rule)


def test_unknown_architecture_is_refused() -> None:
    with pytest.raises(OSError, match="SCMP_ARCH_NONE"):
        program(machines=("SCMP_ARCH_NONE",))
