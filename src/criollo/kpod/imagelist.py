"""`kpod images`: the images of this node, chosen and shown as it is wished."""

import datetime
import fnmatch
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import click

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Invalid, NotFound
from criollo.kpod import http
from criollo.kpod.answers import decoded
from criollo.kpod.pull import status
from criollo.kpod.session import Options, Session, work
from criollo.kpod.template import Template
from criollo.kpod.text import age, document, short, size, table

_NONE: Final = "<none>"
_TABLE: Final = "table "
FILTERS: Final = ("reference", "dangling", "label", "before", "since")
_END_OF_TIME_NS: Final = 253_402_300_799 * 1_000_000_000  # the last second of the year 9999
_OF_CONFIG: Final = {"Created", "CreatedAt", "CreatedSince", "Labels"}


class Config(NamedTuple):
    """What of an image's config is asked about."""

    created_ns: int = 0
    labels: Mapping[str, str] = {}


class ListWish(NamedTuple):
    """How they are shown."""

    digests: bool
    whole: bool
    quiet: bool
    form: str


@click.command("images")
@click.option(
    "-a", "--all", "everything", is_flag=True, help="All images; as there are no intermediate ones, it changes nothing."
)
@click.option("--digests", is_flag=True, help="Show digests too.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help=f"Only some: {', '.join(FILTERS)}.")
@click.option(
    "--format", "form", default="", metavar="json|TEMPLATE", help="Print JSON, or a line for each name by a template."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--no-trunc", "whole", is_flag=True, help="Show whole ids.")
@click.option("-q", "--quiet", is_flag=True, help="Show ids only.")
@click.argument("image", required=False, default="")
@click.pass_obj
def images(options: Options, /, image: str, filters: tuple[str, ...], as_json: bool, everything: bool, **how: Any) -> int:
    """List images; with IMAGE only those of that name.

    A template has {{.Fields}}: ID, Repository, Tag, Digest, Size, SizeBytes, Created, CreatedAt, CreatedSince, Labels, Names,
    Digests, User, Pinned. After 'table ' it has heads and columns, parted by \\t.
    """
    wish = ListWish(how["digests"], how["whole"], how["quiet"], "json" if as_json else how["form"])
    if wish.quiet and wish.form:
        raise click.UsageError("--quiet goes without --json and --format.")
    chosen = [parse_filter(each) for each in (*filters, *([f"reference={image}"] if image else []))]
    template = Template(wish.form.removeprefix(_TABLE)) if wish.form not in ("", "json") else None

    async def verb(session: Session) -> int:
        reply = await session.client.image("ListImages", pb.ListImagesRequest())
        needs = {key for key, _ in chosen} & {"label", "before", "since"} or set(
            template.paths if template else ()
        ) & _OF_CONFIG
        configs = {each.id: await _config(session, each.id) if needs else Config() for each in reply.images}
        found = [each for each in reply.images if all([await _fits(session, key, each, configs) for key in _grouped(chosen)])]
        found.sort(key=lambda each: (list(each.repo_tags) or ["~"], each.id))
        for line in _shown(found, configs, wish, template):
            click.echo(line)
        return 0

    return work(options, verb)


def parse_filter(text: str) -> tuple[str, str]:
    """`KEY=VALUE`. Raises Invalid."""
    key, equals, value = text.partition("=")
    key = {"after": "since"}.get(key, key)
    if key not in FILTERS or not equals or not value:
        raise Invalid("--filter", text, f"KEY=VALUE with one of {', '.join(FILTERS)}")
    if key == "dangling" and value not in ("true", "false"):
        raise Invalid("--filter", text, "dangling=true or dangling=false")
    return key, value


def _grouped(chosen: Sequence[tuple[str, str]]) -> list[tuple[str, tuple[str, ...]]]:
    """References are alternatives; everything else must hold together."""
    references = tuple(value for key, value in chosen if key == "reference")
    rest: list[tuple[str, tuple[str, ...]]] = [(key, (value,)) for key, value in chosen if key != "reference"]
    return [("reference", references), *rest] if references else rest


async def _fits(session: Session, asked: tuple[str, tuple[str, ...]], image: pb.Image, configs: Mapping[str, Config]) -> bool:
    key, values = asked
    if key == "reference":
        return any(is_named(image, value) for value in values)
    if key == "dangling":
        return (not image.repo_tags) == (values[0] == "true")
    if key == "label":
        name, equals, value = values[0].partition("=")
        labels = configs[image.id].labels
        return name in labels and (not equals or labels[name] == value)
    other = await status(session, values[0])
    if other is None:
        raise NotFound("image", values[0], "kpod images lists them")
    ours, theirs = configs[image.id].created_ns, configs[other.id].created_ns
    return ours < theirs if key == "before" else ours > theirs


def is_named(image: pb.Image, pattern: str) -> bool:
    """Whether a pattern means a name of the image, whole or from one of its slashes on, with or without the tag; or its id."""
    if len(pattern) >= 3 and image.id.startswith(pattern.removeprefix("sha256:")):
        return True
    for name in (*image.repo_tags, *image.repo_digests):
        bare = name.partition("@")[0] if "@" in name else name.rpartition(":")[0]
        for whole in (name, bare):
            parts = whole.split("/")
            if any(fnmatch.fnmatchcase("/".join(parts[at:]), pattern) for at in range(len(parts))):
                return True
    return False


async def _config(session: Session, image_id: str) -> Config:
    what = "/images/config"
    config = decoded(await http.get(session.socket, what, {"image": image_id}), dict, what)
    inner = config.get("config")
    labels = inner.get("Labels") if isinstance(inner, dict) else None
    shown = {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}
    return Config(_moment(config.get("created")), shown)


def _moment(text: object) -> int:
    """Nanoseconds since the epoch; 0 for what is no moment, or one beyond what can be shown."""
    try:
        found = int(datetime.datetime.fromisoformat(str(text)).astimezone(datetime.UTC).timestamp() * 1e9)
    except (ValueError, OverflowError):
        return 0
    return found if found < _END_OF_TIME_NS else 0


def _shown(
    found: Sequence[pb.Image], configs: Mapping[str, Config], wish: ListWish, template: Template | None
) -> Iterator[str]:
    if wish.quiet:
        yield from dict.fromkeys(image.id if wish.whole else short(image.id) for image in found)
    elif wish.form == "json":
        yield document([described(image) for image in found])
    elif template is None:
        heads = ("REPOSITORY", "TAG", *(("DIGEST",) if wish.digests else ()), "IMAGE ID", "SIZE")
        yield table(heads, [row for image in found for row in _rows(image, wish)])
    else:
        filled = [template.fill(fields) for image in found for fields in _fields(image, configs[image.id], wish)]
        if wish.form.startswith(_TABLE):
            heads = tuple(template.heads().split("\t"))
            yield table(heads, [(line.split("\t") + [""] * len(heads))[: len(heads)] for line in filled])
        else:
            yield from filled


def _fields(image: pb.Image, config: Config, wish: ListWish) -> Iterator[dict[str, Any]]:
    """What a template may name, for each name of an image."""
    created = datetime.datetime.fromtimestamp(config.created_ns / 1e9, datetime.UTC)
    for name in _names(image):
        yield {
            "ID": image.id if wish.whole else short(image.id),
            "Repository": name[0],
            "Tag": name[1],
            "Digest": name[2],
            "Size": size(image.size),
            "SizeBytes": image.size,
            "Created": created.isoformat(),
            "CreatedAt": created.isoformat(),
            "CreatedSince": f"{age(config.created_ns, time.time_ns())} ago" if config.created_ns else "",
            "Labels": dict(config.labels),
            "Names": list(image.repo_tags),
            "Digests": list(image.repo_digests),
            "User": _user(image),
            "Pinned": image.pinned,
        }


def _names(image: pb.Image) -> Iterator[tuple[str, str, str]]:
    """Repository, tag and digest of each name; of an image without a tag those of its first digest."""
    by_name = {each.partition("@")[0]: each.partition("@")[2] for each in image.repo_digests}
    for name in image.repo_tags or [f"{next(iter(by_name), _NONE)}:{_NONE}"]:
        repository, _, tag = name.rpartition(":")
        yield repository, tag, by_name.get(repository, _NONE)


def _rows(image: pb.Image, wish: ListWish) -> Iterator[tuple[str, ...]]:
    image_id = image.id if wish.whole else short(image.id)
    for repository, tag, digest in _names(image):
        yield (repository, tag, *((digest,) if wish.digests else ()), image_id, size(image.size))


def _user(image: pb.Image) -> str:
    return image.username or (str(image.uid.value) if image.HasField("uid") else "")


def described(image: pb.Image) -> dict[str, object]:
    """An image as JSON; the keys stay."""
    return {
        "id": image.id,
        "names": list(image.repo_tags),
        "digests": list(image.repo_digests),
        "size_bytes": image.size,
        "user": _user(image),
        "pinned": image.pinned,
    }
