"""Kills for memory are heard of at once, by the file that conmon makes."""

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
