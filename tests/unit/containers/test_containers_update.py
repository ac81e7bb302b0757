"""What an update of resources changes, and what it leaves."""

from hypothesis import given
from hypothesis import strategies as st

from criollo.containers.update import merge
from criollo.model.pod import HugepageLimit, Resources

NUMBERS = st.integers(0, 1 << 40)
RESOURCES = st.builds(
    Resources,
    cpu_period_us=NUMBERS,
    cpu_quota_us=st.integers(-1, 1 << 40),
    cpu_shares=NUMBERS,
    memory_limit_bytes=NUMBERS,
    memory_swap_limit_bytes=NUMBERS,
    oom_score_adj=st.integers(-1000, 1000),
    cpuset_cpus=st.sampled_from(["", "0", "0-3"]),
    cpuset_mems=st.sampled_from(["", "0"]),
    hugepage_limits=st.sampled_from([(), (HugepageLimit(page_size="2MB", limit_bytes=1),)]),
    unified=st.dictionaries(st.sampled_from(["memory.high", "io.max"]), st.sampled_from(["1", "max"])),
)


def test_what_is_given_replaces_and_the_rest_stays() -> None:
    old = Resources(cpu_shares=2, memory_limit_bytes=100, cpuset_cpus="0", unified={"a": "1", "b": "2"})
    new = Resources(memory_limit_bytes=200, unified={"b": "3"})
    assert merge(old, new) == Resources(cpu_shares=2, memory_limit_bytes=200, cpuset_cpus="0", unified={"a": "1", "b": "3"})


def test_a_quota_without_limit_is_given() -> None:
    assert merge(Resources(cpu_quota_us=5000), Resources(cpu_quota_us=-1)).cpu_quota_us == -1


@given(old=RESOURCES, new=RESOURCES)
def test_every_field_is_of_the_new_or_else_of_the_old(old: Resources, new: Resources) -> None:
    merged = merge(old, new)
    for name in Resources.__struct_fields__:
        if name != "unified":
            assert getattr(merged, name) == (getattr(new, name) or getattr(old, name))
    assert merged.unified == {**old.unified, **new.unified}


@given(RESOURCES)
def test_nothing_given_changes_nothing(old: Resources) -> None:
    assert merge(old, Resources()) == old
    assert merge(Resources(), old) == old
    assert merge(old, old) == old
