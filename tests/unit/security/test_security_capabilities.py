"""Which capabilities a container gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid, Unsupported
from criollo.model.container import Capabilities
from criollo.security.capabilities import DEFAULT, KNOWN, Granted, Policy, decide, from_mask, parse

SHORT = tuple(name.removeprefix("CAP_") for name in KNOWN)
names = st.lists(st.sampled_from((*KNOWN, *SHORT, *(n.lower() for n in SHORT), "ALL", "all")), max_size=6).map(tuple)


def grant(*, privileged: bool = False, is_root: bool = True, policy: Policy | None = None, **asked: tuple[str, ...]) -> Granted:
    return decide(Capabilities(**asked), policy=policy or Policy(), privileged=privileged, is_root=is_root)


def mask(granted: tuple[str, ...]) -> int:
    return sum(1 << KNOWN.index(name) for name in granted)


def test_list_of_capabilities_ends_where_the_kernel_does() -> None:
    assert len(KNOWN) == 41
    assert KNOWN[21] == "CAP_SYS_ADMIN"
    assert KNOWN[40] == "CAP_CHECKPOINT_RESTORE"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, 0x5FB),
        ({"add": ("NET_ADMIN",)}, 0x15FB),
        ({"add": ("cap_net_admin",), "drop": ("CHOWN",)}, 0x15FA),
        ({"drop": ("ALL",)}, 0),
        ({"drop": ("ALL",), "add": ("NET_RAW",)}, 1 << 13),
        ({"drop": ("ALL",), "add": ("ALL",)}, 0),
        ({"drop": ("all",), "add": ("ALL", "NET_RAW", "CHOWN")}, 1 << 13 | 1),
        ({"drop": ("ALL", "CHOWN"), "add": ("ALL", "NET_RAW", "CHOWN")}, 1 << 13),
        ({"add": ("ALL",)}, (1 << 41) - 1),
        ({"add": ("all",), "drop": ("SYS_ADMIN",)}, ((1 << 41) - 1) & ~(1 << 21)),
        ({"add": ("NET_RAW",), "drop": ("NET_RAW",)}, 0x5FB),
    ],
)
def test_add_and_drop(asked: dict[str, tuple[str, ...]], expected: int) -> None:
    assert mask(grant(**asked).bounding) == expected


def test_other_user_ends_with_nothing_effective() -> None:
    granted = grant(is_root=False, add=("NET_ADMIN",))
    assert (granted.effective, granted.permitted, granted.inheritable, granted.ambient) == ((), (), (), ())
    assert "CAP_NET_ADMIN" in granted.bounding


def test_privileged_is_what_the_daemon_holds() -> None:
    held = frozenset(KNOWN) - {"CAP_SYS_RESOURCE"}
    granted = grant(privileged=True, policy=Policy(held=held), drop=("ALL",))
    assert frozenset(granted.bounding) == frozenset(granted.effective) == held


def test_inheritable_only_when_configured() -> None:
    assert grant().inheritable == ()
    assert grant(policy=Policy(add_inheritable=True)).inheritable == grant().bounding


def test_default_that_the_daemon_lacks_is_withheld_and_named() -> None:
    granted = grant(policy=Policy(held=frozenset(KNOWN) - {"CAP_KILL"}))
    assert granted.withheld == ("CAP_KILL",)
    assert "CAP_KILL" not in granted.bounding


def test_asking_by_name_for_what_the_daemon_lacks_is_refused() -> None:
    with pytest.raises(Unsupported, match="CAP_SYS_RESOURCE"):
        grant(policy=Policy(held=frozenset(DEFAULT)), add=("SYS_RESOURCE",))


@pytest.mark.parametrize("name", ["", "CAP_", "CAP_CAP_KILL", "NET ADMIN", "KILL\n", "ＫＩＬＬ", "ALLL", "0"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(Invalid):
        grant(add=(name,))
    with pytest.raises(Invalid):
        grant(drop=(name,))


@given(names, names, names, st.booleans(), st.booleans(), st.booleans())
def test_sets_are_always_consistent(
    add: tuple[str, ...], drop: tuple[str, ...], ambient: tuple[str, ...], privileged: bool, is_root: bool, inherit: bool
) -> None:
    policy = Policy(add_inheritable=inherit)
    got = grant(privileged=privileged, is_root=is_root, policy=policy, add=add, drop=drop, add_ambient=ambient)
    bounding = set(got.bounding)
    assert got.effective == got.permitted
    assert set(got.effective) <= bounding
    assert set(got.ambient) <= set(got.permitted) & set(got.inheritable)
    assert set(got.effective) == (bounding if is_root else set(got.ambient))
    if not privileged:
        assert not bounding & {parse(name, "drop") for name in drop if name.upper() != "ALL"}
        if "ALL" in {name.upper() for name in drop}:
            assert bounding <= {parse(name, "add") for name in (*add, *ambient) if name.upper() != "ALL"}


@given(st.integers(min_value=0, max_value=(1 << 64) - 1))
def test_mask_and_names_are_the_same_below_the_last_capability(bits: int) -> None:
    assert mask(tuple(from_mask(bits))) == bits & ((1 << 41) - 1)
