"""Kills for memory are heard of at once: by the file that conmon makes, or by the counters of the cgroup."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from support.waiting import until

from criollo.monitor.oom_alerts import OomAlerts


def play(scenario: Callable[[OomAlerts, list[str]], object]) -> list[str]:
    heard: list[str] = []

    async def main() -> None:
        alerts = OomAlerts(heard.append)
        try:
            work = scenario(alerts, heard)
            assert asyncio.iscoroutine(work)
            await work
        finally:
            alerts.close()

    asyncio.run(main())
    return heard


def test_file_of_conmon_is_heard_of_and_others_are_not(tmp_path: Path) -> None:
    bundles = [tmp_path / name for name in ("a", "b")]

    async def scenario(alerts: OomAlerts, heard: list[str]) -> None:
        for bundle in bundles:
            bundle.mkdir()
            alerts.watch(bundle.name, bundle)
        (bundles[0] / "pidfile").touch()
        (bundles[1] / "oom").touch()
        (bundles[1] / "oom").touch()
        await until(lambda: bool(heard))

    assert play(scenario) == ["b"]


def test_container_that_is_forgotten_is_not_heard_of(tmp_path: Path) -> None:
    gone, here = tmp_path / "gone", tmp_path / "here"

    async def scenario(alerts: OomAlerts, heard: list[str]) -> None:
        for bundle in (gone, here):
            bundle.mkdir()
            alerts.watch(bundle.name, bundle)
        (gone / "oom").touch()
        alerts.forget("gone")
        alerts.forget("gone")
        (here / "oom").touch()
        await until(lambda: bool(heard))

    assert play(scenario) == ["here"]


def test_bundle_that_is_not_there_is_no_failure_and_a_closed_one_takes_no_more_room(tmp_path: Path) -> None:
    async def scenario(alerts: OomAlerts, heard: list[str]) -> None:
        alerts.watch("none", tmp_path / "none")
        alerts.watch("there", tmp_path)
        alerts.close()
        alerts.close()

    assert play(scenario) == []


def counters(file: Path, *, kills: int, limit_met: int = 0) -> Path:
    file.write_text(f"low 0\nhigh 0\nmax {limit_met}\noom {kills}\noom_kill {kills}\noom_group_kill 0\n")
    return file


def test_counters_tell_of_the_first_kill_and_not_of_a_limit_that_is_met(tmp_path: Path) -> None:
    files = [counters(tmp_path / name, kills=0) for name in ("a", "b")]

    async def scenario(alerts: OomAlerts, heard: list[str]) -> None:
        for file in files:
            alerts.watch(file.name, tmp_path / "no bundle", file)
        for met in range(3):
            counters(files[0], kills=0, limit_met=met)
        for kills in (1, 2):
            counters(files[1], kills=kills, limit_met=4)
        await until(lambda: bool(heard))
        counters(files[1], kills=3)
        counters(files[0], kills=1)
        await until(lambda: len(heard) > 1)

    assert play(scenario) == ["b", "a"]


def test_kill_before_there_was_anybody_to_hear_it_is_told_of_a_new_container_only(tmp_path: Path) -> None:
    new, old, later = (counters(tmp_path / name, kills=2) for name in ("new", "old", "later"))

    async def scenario(alerts: OomAlerts, heard: list[str]) -> None:
        alerts.watch("new", tmp_path, new)
        alerts.watch("old", tmp_path, old, is_new=False)
        alerts.watch("later", tmp_path, later, is_new=False)
        counters(later, kills=3)
        await until(lambda: "later" in heard)

    assert play(scenario) == ["new", "later"]


def test_without_counters_conmon_tells(tmp_path: Path) -> None:
    async def scenario(alerts: OomAlerts, heard: list[str]) -> None:
        alerts.watch("a", tmp_path, tmp_path / "cgroup" / "memory.events")
        (tmp_path / "oom").touch()
        await until(lambda: bool(heard))

    assert play(scenario) == ["a"]


def test_counters_that_go_away_are_no_kill(tmp_path: Path) -> None:
    gone, here = (counters(tmp_path / name, kills=0) for name in ("gone", "here"))

    async def scenario(alerts: OomAlerts, heard: list[str]) -> None:
        for file in (gone, here):
            alerts.watch(file.name, tmp_path, file)
        gone.unlink()
        counters(here, kills=1)
        await until(lambda: bool(heard))
        alerts.forget("gone")

    assert play(scenario) == ["here"]
