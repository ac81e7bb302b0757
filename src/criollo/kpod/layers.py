"""The verbs that show what an image is made of: history, tree."""

import click
import msgspec

from criollo.errors import printable
from criollo.kpod.answers import got
from criollo.kpod.session import Options, Session, work
from criollo.kpod.text import document, short, size, table
from criollo.model.store import Step, Tree, TreeLayer

_WIDEST = 60


@click.command("history")
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True, help="What to print."
)
@click.option("--no-trunc", "whole", is_flag=True, help="Print commands and digests whole.")
@click.argument("image")
@click.pass_obj
def history(options: Options, image: str, form: str, whole: bool) -> int:
    """Show the steps in which IMAGE was made, the newest first, and what each weighs on the disk."""

    async def verb(session: Session) -> int:
        steps = await got(session, "/images/history", {"image": image}, kind=list[Step])
        if form == "json":
            click.echo(document(msgspec.to_builtins(steps)))
            return 0
        rows = [
            (
                each.layer if whole else short(each.layer) or "<config>",
                each.created[:19].replace("T", " "),
                _cut(each.created_by, whole=whole),
                size(each.size_bytes) if each.layer else "",
                _cut(each.comment, whole=whole),
            )
            for each in steps
        ]
        click.echo(table(("LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"), rows))
        return 0

    return work(options, verb)


@click.command("tree")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--no-trunc", "whole", is_flag=True, help="Print commands and digests whole.")
@click.argument("image")
@click.pass_obj
def tree(options: Options, image: str, as_json: bool, whole: bool) -> int:
    """Show the layers of IMAGE, the lowest first, what each weighs, and which other images have it too."""

    async def verb(session: Session) -> int:
        found = await got(session, "/images/tree", {"image": image}, kind=Tree)
        click.echo(document(msgspec.to_builtins(found)) if as_json else "\n".join(_drawn(found, whole=whole)))
        return 0

    return work(options, verb)


def _drawn(found: Tree, *, whole: bool) -> list[str]:
    names = ", ".join(found.names) or "<none>"
    lines = [printable(f"{names}  {short(found.id)}")]
    lines.append(f"{size(found.size_bytes)}: {size(found.unique_bytes)} alone, {size(found.shared_bytes)} shared")
    for depth, layer in enumerate(found.layers):
        lines += _branch(layer, "  " * depth, whole=whole)
    return lines


def _branch(layer: TreeLayer, indent: str, *, whole: bool) -> list[str]:
    name = layer.diff_id if whole else short(layer.diff_id)
    lines = [
        f"{indent}└─ {printable(name)}  {size(layer.size_bytes)}  {printable(_cut(layer.created_by, whole=whole))}".rstrip()
    ]
    if layer.shared_with:
        lines.append(f"{indent}     also in {printable(', '.join(layer.shared_with))}")
    return lines


def _cut(text: str, *, whole: bool) -> str:
    text = " ".join(text.split())
    return text if whole or len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
