"""`crio check`: are records, layers and containers whole; by the running daemon, else by ourselves on its root directory."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from criollo.cli.ask import answers, ask
from criollo.config.load import Loaded
from criollo.config.settings import Settings
from criollo.errors import Damaged, Denied
from criollo.model.care import REPAIRED, LayerCheck, Report

_SHOWN = 5  # users of a layer


class CheckWish(NamedTuple):
    """The flags of the verb."""

    quick: bool
    repair: bool
    force: bool
    wipe: bool
    age_s: float


def run(loaded: Loaded, wish: CheckWish) -> int:
    """Check, print, and give the exit status: 1 for damage that is left.

    Raises:
        CriolloError: it could not be checked.
    """
    if os.geteuid() != 0:
        raise Denied("cannot check the stores: they are root's; use sudo")
    listen = Path(loaded.settings.api.listen)
    is_served = answers(listen)
    report = _asked(listen, wish) if is_served else asyncio.run(_alone(loaded.settings, wish))
    for line in lines(report, repair=wish.repair):
        click.echo(line)
    if report.is_damaged and wish.wipe:
        return _wipe(loaded, is_served=is_served)
    return int(report.is_damaged)


def _asked(listen: Path, wish: CheckWish) -> Report:
    query = {name: "1" for name in ("quick", "repair", "force") if getattr(wish, name)}
    return msgspec.json.decode(ask(listen, "POST", "/check", {**query, "age_s": str(int(wish.age_s))}), type=Report)


async def _alone(settings: Settings, wish: CheckWish) -> Report:
    # The drivers: 0.3 s that a question to the daemon does not need.
    from criollo.aio import threads
    from criollo.engine.opening import open_stores
    from criollo.images.check import Scope, check_stores
    from criollo.images.repair import repair_stores
    from criollo.state.integrity import findings

    os.umask(0o022)  # as the daemon: what is made for containers is readable by them
    databases = [Path(settings.imagestore or settings.root) / "images.db", Path(settings.root) / "state.db"]
    if wrong := [text for path in databases for text in findings(path)]:
        return Report(quick=wish.quick, databases=wrong)
    try:
        async with open_stores(settings, environ=os.environ) as stores:
            containers = [each.id for each in stores.state.containers]
            report = await check_stores(stores.images, quick=wish.quick, scope=Scope(containers=containers))
            if wish.repair:
                await repair_stores(stores.images, report, force=wish.force, age_s=wish.age_s)
            return report
    except Damaged as error:
        return Report(quick=wish.quick, databases=[str(error)])
    finally:
        threads.close()


def _wipe(loaded: Loaded, *, is_served: bool) -> int:
    from criollo.cli import wipe  # the whole engine

    if is_served:
        click.echo("crio: not wiped: the daemon runs; stop it, remove its pods, and use crio wipe --all", err=True)
        return 1
    return wipe.run(loaded, wipe.WipeWish(kinds=frozenset([wipe.EVERYTHING]), sure=True, dry_run=False))


def lines(report: Report, *, repair: bool) -> Iterator[str]:
    """What a person reads: damage first, then the sum."""
    for text in report.databases:
        yield f"DAMAGED  database {text}"
        yield "         stop the daemon and move the file away: images are pulled again, pods are made again by the kubelet"
    for layer in report.damaged:
        yield from _layer(layer)
    for image in report.broken:
        yield f"{'REMOVED ' if image.removed else 'DAMAGED '} image {image.image}: {'; '.join(image.findings)}"
        if image.containers:
            yield f"         containers: {_few(image.containers)}"
        if not image.removed:
            yield "         remove it and pull it again: kpod rmi, kpod pull"
    for container in report.containers:
        yield f"DAMAGED  container {container}: its writable layer is missing; remove the container"
    yield from (
        f"left over {name}: nothing knows this layer{', removed' if name in report.swept else ''}" for name in report.garbage
    )
    if report.unchecked:
        yield f"cannot be checked: {len(report.unchecked)} layers that an older version has pulled; pull their images again"
    yield _sum(report)
    if report.is_damaged and not repair and (report.damaged or report.garbage):
        yield "crio check --repair pulls damaged layers again"


def _layer(layer: LayerCheck) -> Iterator[str]:
    word = "REPAIRED" if layer.state == REPAIRED else layer.state.upper().ljust(8)
    yield f"{word} layer {layer.layer}"
    yield from (f"         {text}" for text in layer.findings)
    if layer.count > len(layer.findings):
        yield f"         and {layer.count - len(layer.findings)} more"
    if layer.images:
        yield f"         images: {_few(layer.images)}"
    if layer.containers:
        goes_on = "; those that ran before go on with the old tree until they end" if layer.state == REPAIRED else ""
        yield f"         containers: {_few(layer.containers)}{goes_on}"
    if layer.not_repaired:
        yield f"         not repaired: {layer.not_repaired}"
        yield "         remove by hand: the containers, then the images above, and pull these again"


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _sum(report: Report) -> str:
    kind = "quick check" if report.quick else f"full check, {report.size_bytes / 1e6:.0f} MB read"
    left = "damage left" if report.is_damaged else "no damage left" if report.damaged or report.broken else "no damage"
    return f"{report.images} images, {report.layers} layers, {kind} in {report.seconds:.1f} s: {left}"
