"""storage.options: what storage_option says, and sizes."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.linux import mount
from criollo.storage.base import Limit
from criollo.storage.options import Options, parse_count, parse_options, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("0", 0), ("1", 1), ("4096", 4096), ("1k", 1 << 10), ("1K", 1 << 10), ("10GiB", 10 << 30), ("10 GB", 10 << 30)),
        *(("512m", 512 << 20), ("1.5g", 3 << 29), ("0.25T", 1 << 38), ("2P", 2 << 50), ("7b", 7), (" 1M ", 1 << 20)),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "overlay.size") == size


@pytest.mark.parametrize("text", ["", "-1", "lots", "1x", "1..5g", "1e3", "²", "٣", "99999999999999999999", "2000000P", "1gg"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(Invalid, match=r"overlay\.size"):
        parse_size(text, "overlay.size")


@given(st.text(max_size=30))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    with contextlib.suppress(Invalid):
        assert 0 <= parse_size(text, "x") <= 1 << 60


@given(st.integers(min_value=0, max_value=1 << 60))
def test_plain_numbers_are_themselves(number: int) -> None:
    assert parse_size(str(number), "x") == number


@pytest.mark.parametrize("text", ["", "-1", "1.5", "many", "1234567890123"])
def test_no_counts(text: str) -> None:
    with pytest.raises(Invalid, match=r"overlay\.inodes"):
        parse_count(text, "overlay.inodes")


def test_limits_of_the_driver_in_use_count_and_the_last_one_wins() -> None:
    given_ = ["overlay.size=1g", "overlay.size = 2g", "btrfs.size=3g", "overlay.inodes=100"]
    assert parse_options("overlay", given_) == Options(Limit(2 << 30, 100))
    assert parse_options("btrfs", given_) == Options(Limit(3 << 30))
    assert parse_options("vfs", given_) == Options()


def test_mount_flags_are_taken_and_other_mount_options_named() -> None:
    found = parse_options("overlay", ["overlay.mountopt=nodev, metacopy=on,nosuid"])
    assert found == Options(mount_flags=mount.MS_NODEV | mount.MS_NOSUID, without_effect=("overlay.mountopt=metacopy=on",))


def test_what_has_no_effect_is_named() -> None:
    given_ = [
        "overlay.mount_program=/usr/bin/fuse-overlayfs",
        "skip_mount_home=true",
        "overlay.imagestore=/x",
        "vfs.mountopt=nodev",
    ]
    assert parse_options("overlay", given_).without_effect == tuple(given_[:2])
    assert parse_options("btrfs", ["btrfs.inodes=5"]).without_effect == ("btrfs.inodes=5",)


@pytest.mark.parametrize("option", ["overlay.size", "", "size"])
def test_an_option_is_a_pair(option: str) -> None:
    with pytest.raises(Invalid, match=r"key=value"):
        parse_options("overlay", [option])
