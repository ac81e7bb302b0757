"""`crio`: the daemon when no verb is given, else a verb.

This module and what it imports at the top stay light (click and the settings): a verb must not pay for the daemon.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from criollo import __version__
from criollo.cli import flags
from criollo.commandline import program
from criollo.config.files import find_default
from criollo.config.host import Host, settle_on_host
from criollo.config.load import Loaded, load
from criollo.config.settings import defaults
from criollo.config.values import Duration
from criollo.errors import Invalid


def run(argv: Sequence[str] | None = None) -> int:
    """The console script `crio`; returns the exit status."""
    return program.run(command, "crio", argv)


class _Crio(program.VerbGroup):
    """The group, with Go's way of writing booleans: `--flag` and `--flag=false`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "status"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "status":
            return super().get_command(ctx, cmd_name)
        from criollo.cli.status import status_group  # http.client: 20 ms that the daemon does not need

        return status_group(_listening)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, flags.with_values(args))


@click.command("config")
@click.option("--default", "only_defaults", is_flag=True, help="Print the defaults, without files, environment and flags.")
@click.pass_context
def _config(context: click.Context, only_defaults: bool) -> None:
    """Print the configuration in force, as a file that crio reads."""
    from criollo.config.template import render

    if only_defaults:
        base = defaults(systemd=Host.here(os.environ).systemd)
        click.echo(render(base, commented_defaults=False, base=base), nl=False)
        return
    loaded = _loaded(context.find_root().params)
    for warning in loaded.warnings:
        click.echo(f"crio: warning: {warning}", err=True)
    base = defaults(systemd=Host.here(os.environ).systemd)
    click.echo(render(loaded.settings, base=base), nl=False)


@click.command("version")
@click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Print the versions of all libraries.")
def _version(as_json: bool, verbose: bool) -> None:
    """Print the version of crio, Python and the libraries."""
    from criollo.cli import version  # importlib.metadata: 25 ms and 1 MiB that the daemon does not need

    click.echo(version.as_json(verbose=verbose) if as_json else version.as_text(verbose=verbose))


@click.command("check")
@click.option("-a", "--age", default="24h", metavar="DURATION", help="With --repair: leave younger leftovers alone [24h].")
@click.option("-f", "--force", is_flag=True, help="With --repair: remove unused images that cannot be repaired.")
@click.option("-q", "--quick", is_flag=True, help="Look at records and directories only, not into the files of layers.")
@click.option("-r", "--repair", is_flag=True, help="Pull what is damaged again, while pods run.")
@click.option("-w", "--wipe", is_flag=True, help="If damage is left, remove everything; not while the daemon runs.")
@click.pass_context
def _check(context: click.Context, /, age: str, **wanted: bool) -> int:
    """Check that records, layers and containers are whole. Exit status 1: damage is left."""
    from criollo.cli import check  # http.client: 20 ms that the daemon does not need

    age_s = Duration.parse(age, "--age").seconds
    return check.run(_loaded(context.find_root().params), check.CheckWish(age_s=age_s, **wanted))


@click.command("explain")
@click.argument("words", metavar="POD|CONTAINER")
@click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def _explain(context: click.Context, words: str, as_json: bool) -> None:
    """Tell what happened to a pod or container, and what is waited for; by id, its beginning, or name."""
    from criollo.cli import explain  # http.client: 20 ms that the daemon does not need

    explain.run(Path(_listening(context)), words, as_json=as_json)


@click.command("wipe")
@click.option("--containers", is_flag=True, help="Remove pods and containers.")
@click.option("--images", is_flag=True, help="Remove images that no container needs.")
@click.option("--all", "everything", is_flag=True, help="Remove everything below root and runroot that is ours.")
@click.option("-f", "--force", is_flag=True, help="Remove containers and images, whatever the version files say.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be removed.")
@click.pass_context
def _wipe(context: click.Context, /, force: bool, dry_run: bool, **kinds: bool) -> int:
    """Remove containers after a reboot, and images after an upgrade, or what the flags say. No daemon may run."""
    from criollo.cli import wipe  # the whole engine: 0.3 s that no other verb needs

    chosen = frozenset(kind for kind, wanted in kinds.items() if wanted)
    return wipe.run(_loaded(context.find_root().params), wipe.WipeWish(chosen, sure=force, dry_run=dry_run))


@click.command("help")
@click.argument("verb", required=False)
@click.pass_context
def _help(context: click.Context, verb: str | None) -> None:
    """Show help of crio or of a verb."""
    root = context.find_root()
    crio = root.command
    assert isinstance(crio, click.Group)
    if verb is None:
        click.echo(root.get_help())
    elif (found := crio.resolve_command(root, [verb])[1]) is not None:
        click.echo(found.get_help(click.Context(found, info_name=verb, parent=root)))


def _daemon(**parameters: Any) -> Callable[[], int] | None:
    """A Kubernetes container runtime: without a command, run the daemon."""
    if click.get_current_context().invoked_subcommand is not None:
        return None

    def read() -> Loaded:
        return settle_on_host(_loaded(parameters), Host.here(os.environ))

    loaded = read()

    def serve() -> int:
        from criollo.daemon.main import serve  # gRPC and all drivers: 20 MiB and 0.3 s that no verb needs

        return serve(loaded, read)

    return serve  # called when the command line with its hundreds of flags, half a MiB, is gone


def _loaded(parameters: dict[str, Any]) -> Loaded:
    """The configuration that global flags and the environment ask for."""
    usual_conf, usual_dir = find_default()
    conf = _named(parameters["config"], usual_conf)
    conf_dir = _named(parameters["config_dir"], usual_dir)
    loaded = load(conf, conf_dir, environ=os.environ, overrides=flags.overrides(parameters))
    form = parameters["log_format"]
    if form not in ("text", "json"):
        raise Invalid("--log-format", form, "'text' or 'json'")
    return msgspec.structs.replace(loaded, log_format=form)


def _listening(context: click.Context) -> str:
    """The socket of the configuration in force."""
    return _loaded(context.find_root().params).settings.api.listen


def _named(text: str | None, usual: Path | None) -> Path | None:
    """The path of `-c` and `-d`: not given is the usual one, the empty text is none."""
    if text is None:
        return usual
    return Path(text).absolute() if text else None


def _global_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["-c", "--config"], metavar="FILE", envvar="CONTAINER_CONFIG", help="The configuration file; '' for none."
        ),
        click.Option(
            ["-d", "--config-dir"], metavar="DIRECTORY", envvar="CONTAINER_CONFIG_DIR", help="The drop-in files; '' for none."
        ),
        click.Option(
            ["--log-format"], metavar="TEXT", envvar="CONTAINER_LOG_FORMAT", default="text", help="Log lines: 'text' or 'json'."
        ),
        *flags.setting_flags(),
    ]


def command() -> click.Group:
    """The command line of crio; calling the daemon's result serves."""
    crio = _Crio(
        "crio",
        callback=_daemon,
        params=_global_options(),
        invoke_without_command=True,
        context_settings=program.CONTEXT,
        help=_daemon.__doc__,
        commands={"check": _check, "config": _config, "explain": _explain, "version": _version, "wipe": _wipe, "help": _help},
    )
    return click.version_option(__version__, "-v", "--version", message="crio version %(version)s (criollo)")(crio)
