"""Block devices by pattern."""

import os
from pathlib import Path

from criollo.linux.block_devices import matching


def test_only_block_devices_match_and_links_are_followed(tmp_path: Path) -> None:
    name = min(Path("/sys/block").iterdir()).name
    number = os.stat(f"/dev/{name}").st_rdev
    (tmp_path / "link").symlink_to(f"/dev/{name}")
    (tmp_path / "dangling").symlink_to("/dev/none")
    expected = [(os.major(number), os.minor(number))]
    assert matching(f"/dev/{name}") == matching(f"{tmp_path}/*") == expected
    assert matching("/dev/nul[l]") == matching("/none/*") == []
