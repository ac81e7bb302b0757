"""Facts of a host from the text of its /proc and /sys."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.oci.runtime_spec import UNLIMITED
from criollo.specgen.host import HostFacts, gather, hugepage_name, parse_limits

LIMITS = """Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max open files            1024                 524288               files     
Max nice priority         0                    0                    
"""  # noqa: W291


def gathered(files: dict[str, str], directories: dict[str, list[str]]) -> HostFacts:
    def read(path: str) -> bytes:
        if path not in files:
            raise FileNotFoundError(path)
        return files[path].encode()

    def names(path: str) -> list[str]:
        if path not in directories:
            raise FileNotFoundError(path)
        return directories[path]

    reader: Callable[[str], bytes] = read
    return gather(reader, names)


def test_v2_host() -> None:
    facts = gathered(
        {
            "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids\n",
            "/proc/self/status": "Name:\tx\nCapBnd:\t000001ffffffffff\n",
            "/proc/self/oom_score_adj": "-999\n",
            "/proc/self/limits": LIMITS,
            "/proc/self/cgroup": "0::/system.slice/crio.service\n",
            "/sys/module/apparmor/parameters/enabled": "Y\n",
            "/proc/sys/kernel/osrelease": "6.12.3-1-amd64\n",
        },
        {
            "/dev": ["null", "mqueue"],
            "/sys/kernel/security/apparmor": ["profiles"],
            "/sys/kernel/mm/hugepages": ["hugepages-1048576kB", "hugepages-2048kB", "junk"],
            "/sys/fs/cgroup/system.slice/crio.service": ["memory.swap.max", "memory.max"],
            "/sys/devices/system/cpu": ["cpu10", "cpu0", "cpufreq", "cpu2"],
            "/sys/devices/system/cpu/cpu2/thermal_throttle": ["core_throttle_count"],
            "/sys/devices/system/cpu/cpu10/thermal_throttle": ["core_throttle_count"],
        },
    )
    assert (facts.cgroup_v2, facts.has_swap_accounting, facts.has_pids, facts.may_raise) == (True, True, True, True)
    assert facts.hugepage_sizes == ("2MB", "1GB")
    assert facts.thermal_paths == tuple(f"/sys/devices/system/cpu/cpu{n}/thermal_throttle" for n in (2, 10))
    assert (facts.oom_score_adj, facts.rlimits["nofile"], facts.apparmor) == (-999, 524288, True)
    assert (facts.kernel, facts.has_mqueue) == ((6, 12), True)


def test_v1_host_without_a_capability() -> None:
    facts = gathered(
        {
            "/proc/self/status": "CapBnd:\t000001fffeffffff\n",
            "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes": "9223372036854771712\n",
        },
        {"/sys/fs/cgroup/pids": ["cgroup.procs"], "/sys/fs/cgroup/hugetlb": []},
    )
    assert (facts.cgroup_v2, facts.has_swap_accounting, facts.has_pids, facts.may_raise) == (False, True, True, False)
    assert facts.hugepage_sizes == ()


def test_empty_host_offers_nothing() -> None:
    assert gathered({}, {}) == HostFacts(cgroup_v2=False, capabilities=frozenset(), has_pids=False)


def test_hard_limits_are_read() -> None:
    assert parse_limits(LIMITS) == {"cpu": UNLIMITED, "nofile": 524288, "nice": 0}


@pytest.mark.parametrize(("size", "name"), [(64, "64KB"), (2048, "2MB"), (1048576, "1GB"), (16777216, "16GB")])
def test_page_sizes_are_named_as_the_kernel_does(size: int, name: str) -> None:
    assert hugepage_name(size) == name


@given(st.text(alphabet="Max open files \n0129unlimited\t²", max_size=200))
def test_any_text_of_limits_gives_numbers(text: str) -> None:
    assert all(value >= 0 for value in parse_limits(text).values())


def test_this_host_has_facts() -> None:
    facts = gather()
    assert "CAP_CHOWN" in facts.capabilities or not facts.may_raise
    assert "nofile" in facts.rlimits


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate,memory_recursiveprot 0 0", True),
        ("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0", False),
        ("none /mnt tmpfs rw,nsdelegate 0 0", False),
        ("junk", False),
    ],
)
def test_cgroups_are_delegated_where_they_are_mounted_so(line: str, answer: bool) -> None:
    assert gathered({"/proc/self/mounts": f"proc /proc proc rw 0 0\n{line}\n"}, {}).delegates_cgroups is answer
