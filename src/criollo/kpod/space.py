"""The verbs for room on the disk: du, prune."""

import click
import msgspec

from criollo.kpod.answers import got, posted
from criollo.kpod.lookup import everything
from criollo.kpod.outcome import warn
from criollo.kpod.session import Options, Session, work
from criollo.kpod.text import document, short, size, table
from criollo.model.store import DiskUsage, Pruned


@click.command("du")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
@click.pass_obj
def du(options: Options, as_json: bool) -> int:
    """Show what images and containers take on the disk, and what nobody needs."""

    async def verb(session: Session) -> int:
        usage = await got(session, "/images/usage", kind=DiskUsage)
        if as_json:
            click.echo(document(msgspec.to_builtins(usage)))
            return 0
        names = {each.id: each.metadata.name for each in (await everything(session)).containers}
        click.echo(_images(usage))
        if usage.containers:
            click.echo("\n" + _containers(usage, names))
        if usage.unused_layers:
            rows = [(short(each.layer), size(each.size_bytes), each.why) for each in usage.unused_layers]
            click.echo("\n" + table(("UNUSED LAYER", "SIZE", "WHY"), rows))
        total = f"layers {size(usage.layers_bytes)}, of them unused {size(usage.unused_bytes)}"
        click.echo(f"\n{total}; containers {size(usage.containers_bytes)}")
        return 0

    return work(options, verb)


def _images(usage: DiskUsage) -> str:
    rows = [
        (
            next(iter((*each.names, *each.digests)), "<none>"),
            short(each.id),
            str(each.layers),
            size(each.size_bytes),
            size(each.shared_bytes),
            size(each.unique_bytes),
            str(each.containers),
            "yes" if each.pinned else "",
        )
        for each in usage.images
    ]
    return table(("IMAGE", "IMAGE ID", "LAYERS", "SIZE", "SHARED", "UNIQUE", "CONTAINERS", "PINNED"), rows)


def _containers(usage: DiskUsage, names: dict[str, str]) -> str:
    rows = [
        (short(each.id), names.get(each.id, ""), short(each.image_id), size(each.writable_bytes), str(each.inodes))
        for each in usage.containers
    ]
    return table(("CONTAINER", "NAME", "IMAGE ID", "WRITABLE", "FILES"), rows)


@click.command("prune")
@click.option("-a", "--all", "all_unused", is_flag=True, help="Also images with a tag, and what a cut pull had finished.")
@click.option("-n", "--dry-run", is_flag=True, help="Only tell what would go.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
@click.pass_obj
def prune(options: Options, all_unused: bool, dry_run: bool, as_json: bool) -> int:
    """Remove images that have no tag and that no container uses, and layers that no image has.

    An image that was pulled by its digest alone has no tag. Pinned images, and those that something works with, stay.
    """

    async def verb(session: Session) -> int:
        query = {"all": str(int(all_unused)), "dry_run": str(int(dry_run))}
        pruned = await posted(session, "/images/prune", query, kind=Pruned)
        if as_json:
            click.echo(document(msgspec.to_builtins(pruned)))
            return 0
        for name, why in sorted(pruned.kept.items()):
            warn(f"{name} stays: {why}")
        would = "would remove" if pruned.dry_run else "removed"
        rows = [
            *((f"{would} image", short(each.id), ", ".join((*each.names, *each.digests))) for each in pruned.images),
            *((f"{would} layer", short(each.layer), f"{size(each.size_bytes)}, {each.why}") for each in pruned.layers),
        ]
        if rows:
            click.echo(table(("", "ID", ""), rows).partition("\n")[2])
        click.echo(f"{'would free' if pruned.dry_run else 'freed'} {size(pruned.freed_bytes)}, {pruned.freed_inodes} files")
        return 0

    return work(options, verb)
