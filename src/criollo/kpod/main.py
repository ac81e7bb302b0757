"""`kpod`: verbs for images, containers and pods.

A verb lives in a module of its own, imported when it is asked for: `kpod --help` costs neither protobuf nor the engine.
"""

import importlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import click

from criollo import __version__
from criollo.commandline import program
from criollo.kpod.session import Options


class Verb(NamedTuple):
    """Where a verb is defined, and what it is for."""

    module: str
    name: str
    summary: str


VERBS: Final[dict[str, Verb]] = {
    "pull": Verb("criollo.kpod.pull", "pull", "Fetch an image from its registry."),
    "push": Verb("criollo.kpod.push", "push", "Push an image to a registry."),
    "copy": Verb("criollo.kpod.copy", "copy", "Copy an image between registries and layouts as it is."),
    "sign": Verb("criollo.kpod.signing", "sign", "Sign an image at its registry."),
    "verify": Verb("criollo.kpod.signing", "verify", "Tell whether the trust policy lets an image run."),
    "login": Verb("criollo.kpod.logins", "login", "Keep the credentials for a registry."),
    "logout": Verb("criollo.kpod.logins", "logout", "Forget the credentials for a registry."),
    "registry": Verb("criollo.kpod.registry", "registry", "Show where images are looked for, and why."),
    "images": Verb("criollo.kpod.imagelist", "images", "List images."),
    "tag": Verb("criollo.kpod.names", "tag", "Give an image further names."),
    "untag": Verb("criollo.kpod.names", "untag", "Take names from an image."),
    "history": Verb("criollo.kpod.layers", "history", "Show how an image was made."),
    "tree": Verb("criollo.kpod.layers", "tree", "Show an image's layers and who shares them."),
    "rmi": Verb("criollo.kpod.images", "rmi", "Remove images."),
    "prune": Verb("criollo.kpod.space", "prune", "Remove images and layers that nobody needs."),
    "du": Verb("criollo.kpod.space", "du", "Show what images and containers take on the disk."),
    "import": Verb("criollo.kpod.importing", "import_", "Make an image of a root filesystem."),
    "load": Verb("criollo.kpod.archives", "load", "Load images from an archive or a directory."),
    "save": Verb("criollo.kpod.archives", "save", "Write images to an archive."),
    "run": Verb("criollo.kpod.run", "run", "Run a command in a new pod."),
    "play": Verb("criollo.kpod.play", "play", "Run the pods of a Kubernetes manifest."),
    "pods": Verb("criollo.kpod.pods", "pods", "List pods."),
    "ps": Verb("criollo.kpod.pods", "ps", "List containers."),
    "logs": Verb("criollo.kpod.logs", "logs", "Print what a container wrote."),
    "exec": Verb("criollo.kpod.interactive", "exec_", "Run a command in a container."),
    "attach": Verb("criollo.kpod.interactive", "attach", "Connect to the process of a container."),
    "port-forward": Verb("criollo.kpod.portforward", "port_forward", "Connect ports here to ports of a pod."),
    "cp": Verb("criollo.kpod.cp", "cp", "Copy files into or out of a container."),
    "stats": Verb("criollo.kpod.stats", "stats", "Show what containers use."),
    "inspect": Verb("criollo.kpod.inspect", "inspect", "Show all that is known of an object, as JSON."),
    "stop": Verb("criollo.kpod.lifecycle", "stop", "Stop pods or containers."),
    "rm": Verb("criollo.kpod.lifecycle", "rm", "Remove pods or containers."),
}


def run(argv: Sequence[str] | None = None) -> int:
    """The console script `kpod`; returns the exit status."""
    return program.run(lambda: command, "kpod", argv)


class _Kpod(program.VerbGroup):
    """The group, with its verbs from a table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        found = getattr(importlib.import_module(verb.module), verb.name)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.summary) for name, verb in VERBS.items()])


@click.command(cls=_Kpod, context_settings=program.CONTEXT)
@click.option("-c", "--config", metavar="FILE", envvar="CONTAINER_CONFIG", help="The configuration file of crio; '' for none.")
@click.option("-d", "--config-dir", metavar="DIRECTORY", envvar="CONTAINER_CONFIG_DIR", help="Its drop-in files; '' for none.")
@click.option("--listen", metavar="SOCKET", help="The daemon's socket, if not the configured one.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="error",
    show_default=True,
    help="What is told of the work inside.",
)
@click.version_option(__version__, message="kpod version %(version)s (criollo)")
@click.pass_context
def command(context: click.Context, /, **options: str) -> None:
    """Images, containers and pods of this node: through the daemon when one runs, else by itself."""
    context.obj = Options(**options)
