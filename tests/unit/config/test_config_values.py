"""Values written as text: good shapes mean what they say, all others are refused with the field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.config import values
from criollo.errors import Invalid


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("0s", 0), ("", 0), ("90s", 90), ("1m30s", 90), ("1h", 3600), ("250ms", 0.25), ("1.5s", 1.5), ("2µs", 2e-6)],
)
def test_duration_reads_as_go_writes_it(text: str, seconds: float) -> None:
    assert values.Duration.parse(text).seconds == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["5", "s", "-1s", "1d", "1s ", " 1s", "1e9s", "١s", "1s\n", "999999999999999999h"])
def test_duration_refuses_other_shapes(text: str) -> None:
    with pytest.raises(Invalid, match="here"):
        values.Duration.parse(text, "here")


@pytest.mark.parametrize(
    ("text", "count"),
    [("12MiB", 12 << 20), ("512k", 512 << 10), ("1048576", 1 << 20), ("1 GB", 1 << 30), ("1.5k", 1536), ("", 0)],
)
def test_size_counts_in_powers_of_1024(text: str, count: int) -> None:
    assert values.Size.parse(text).bytes == count


@pytest.mark.parametrize("text", ["-1", "1e99", "12 Mi B", "MiB", "1x", "99999999999999999p", "12MiB\n", "٢k"])
def test_size_refuses_other_shapes(text: str) -> None:
    with pytest.raises(Invalid):
        values.Size.parse(text)


def test_ulimit_names_the_limit_as_the_runtime_spec_does() -> None:
    assert values.parse_ulimit("nofile=1024:2048") == values.Ulimit("RLIMIT_NOFILE", 1024, 2048)
    assert values.parse_ulimit("core=0") == values.Ulimit("RLIMIT_CORE", 0, 0)
    assert values.parse_ulimit("memlock=-1:-1") == values.Ulimit("RLIMIT_MEMLOCK", values.UNLIMITED, values.UNLIMITED)


def test_ulimit_refuses_soft_above_hard() -> None:
    with pytest.raises(Invalid, match="ulimit soft limit must be less than or equal to hard limit: 2 > 1"):
        values.parse_ulimit("nofile=2:1")


@pytest.mark.parametrize("text", ["", "nofile", "nofile=", "nofile=a:1", "nofile=1:2:3", "what=1:2", "nofile=1 :2", "nofile=²"])
def test_ulimit_refuses_other_shapes(text: str) -> None:
    with pytest.raises(Invalid):
        values.parse_ulimit(text)


def test_sysctl_value_may_hold_spaces() -> None:
    assert values.parse_sysctl("net.ipv4.ping_group_range=0 2147483647") == ("net.ipv4.ping_group_range", "0 2147483647")


@pytest.mark.parametrize(
    "text",
    [
        "net.ipv4.ip_forward = 1",
        " net.ipv4.ip_forward=1",
        "net.ipv4.ip_forward=1 ",
        "net.ipv4.ip_forward",
        "net.ipv4.ip_forward=1+kernel.shmmax=2",
        "net.ipv4.ip_forward=1=2",
        "net.ipv4.ip_forward=1\nkernel.hostname",
        "net/../../kernel/core_pattern=x",
        "kernel.core_pattern=|/x",
        "vm.overcommit_memory=1",
        "=1",
    ],
)
def test_sysctl_refuses_spaces_second_entries_and_host_wide_names(text: str) -> None:
    with pytest.raises(Invalid):
        values.parse_sysctl(text)


def test_a_long_name_of_a_sysctl_is_refused_at_once() -> None:
    with pytest.raises(Invalid):
        values.parse_sysctl("a" + ".a" * 200 + "!=1")  # each way to split it would be tried, and there are 2 ** 200


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("/dev/sdc", ("/dev/sdc", "/dev/sdc", "rwm")),
        ("/dev/sdc:rw", ("/dev/sdc", "/dev/sdc", "rw")),
        ("/dev/sdc:/dev/xvdc", ("/dev/sdc", "/dev/xvdc", "rwm")),
        ("/dev/sdc:/dev/xvdc:r", ("/dev/sdc", "/dev/xvdc", "r")),
    ],
)
def test_device_reads_all_short_forms(text: str, device: tuple[str, str, str]) -> None:
    assert values.parse_device(text) == values.DeviceSpec(*device)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/etc/passwd", "is not a valid device"),
        ("/dev/../etc/passwd", "is not a valid device"),
        ("/dev/a:/b", "is not a valid device"),
        ("/dev/a:/dev/b:rwx", "invalid device mode"),
        ("/dev/a:rr", "invalid device mode"),
        ("/dev/a:/dev/b:", "invalid device mode"),
        ("/dev/a:/dev/b:r:w", "is not a valid device"),
        ("", "is not a valid device"),
    ],
)
def test_device_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        values.parse_device(text)


def test_cpu_list_is_a_set_of_numbers() -> None:
    assert values.parse_cpus("0-2,8") == {0, 1, 2, 8}


@pytest.mark.parametrize("text", ["", "a", "3-1", "0-", "1,,2", "0-999999", " 1"])
def test_cpu_list_refuses_other_shapes(text: str) -> None:
    with pytest.raises(Invalid):
        values.parse_cpus(text)


def test_capability_gets_its_prefix() -> None:
    assert values.parse_capability("chown") == values.parse_capability("CAP_CHOWN") == "CAP_CHOWN"
    with pytest.raises(Invalid):
        values.parse_capability("CHMOD")


@given(st.text(max_size=40) | st.from_regex(r"[a-z]+[=:][0-9:/a-z.-]*", fullmatch=True))
def test_any_text_gives_a_value_or_invalid(text: str) -> None:
    for parse in (
        values.Duration.parse,
        values.Size.parse,
        values.parse_ulimit,
        values.parse_sysctl,
        values.parse_device,
        values.parse_cpus,
        values.parse_capability,
    ):
        try:
            parse(text)
        except Invalid:
            continue


@given(st.integers(0, 2**53))
def test_sizes_and_seconds_round_trip(number: int) -> None:
    assert values.Size.parse(str(number)).bytes == number
    assert values.Duration.parse(f"{number % 10**9}s").seconds == number % 10**9
