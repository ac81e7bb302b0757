"""`kpod run`: a pod of one container, in the foreground or left running."""

import asyncio
import contextlib
import os
import secrets
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import click

from criollo.aio.cleanup import cleanup
from criollo.aio.together import first
from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Exists, Invalid
from criollo.kpod import interactive, launch, logs, places, runflags, signals
from criollo.kpod.detach import DEFAULT, parse_keys
from criollo.kpod.lookup import everything
from criollo.kpod.manifest import Pod, check_names
from criollo.kpod.outcome import tell, warn
from criollo.kpod.podspec import Origin, PodPlan, make_plan
from criollo.kpod.remote import Detached
from criollo.kpod.runflags import Order
from criollo.kpod.session import Options, Session, work

GRACE_S = 10


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.option("--name", metavar="NAME", default="", help="The name of pod and container; none: one is made up.")
@click.option("--rm", "remove", is_flag=True, help="Remove the pod when the command has ended.")
@click.option("-d", "--detach", is_flag=True, help="Leave it running and print the ids of pod and container.")
@click.option("-i", "--interactive", "stdin", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.option("--detach-keys", metavar="KEYS", default=DEFAULT, show_default=True, help="With -it: keys that leave it running.")
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable, or pass ours on.")
@click.option("-v", "--volume", "volumes", multiple=True, metavar="SRC:DST[:ro]", help="Mount a file or directory of the node.")
@click.option(
    "-p", "--publish", "ports", multiple=True, metavar="[IP:]HOST:CTR[/PROTO]", help="A port of the node to the pod's."
)
@click.option("--network", type=click.Choice(["pod", "host"]), default="pod", show_default=True, help="Whose network it has.")
@click.option("--runtime", "handler", metavar="HANDLER", default="", help="The runtime handler; none: the default one.")
@click.option("--user", metavar="USER[:GID]", default="", help="Run as this user: a number, or a name that the image knows.")
@click.option("--workdir", metavar="DIRECTORY", default="", help="Where the command starts.")
@click.option("--read-only", is_flag=True, help="Mount the root filesystem read-only.")
@click.option("--privileged", is_flag=True, help="All capabilities and devices, and no confinement.")
@click.option("--memory", metavar="SIZE", default="", help="A limit, such as 64m.")
@click.option("--cpus", metavar="NUMBER", default="", help="A limit, such as 0.5.")
@click.option(
    "--pull", type=click.Choice(list(runflags.PULL_POLICIES)), default="missing", show_default=True, help="When to pull."
)
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run(options: Options, /, *, remove: bool, detach: bool, detach_keys: str, **order: object) -> int:
    """Run COMMAND (none: the image's own) in a new pod of IMAGE, and exit as it does."""
    if remove and detach:
        raise click.UsageError("--rm and -d exclude each other: kpod does not stay to remove the pod.")
    wanted = Order(**order)  # type: ignore[arg-type]  # click has the types
    manner = interactive.Manner(wanted.stdin, wanted.tty, parse_keys(detach_keys) if wanted.tty else b"")
    if not detach:
        interactive.check_terminal(manner)

    async def verb(session: Session) -> int:
        async with contextlib.AsyncExitStack() as stack:
            talk = interactive.Talk(session, manner, stack) if manner.stdin or manner.tty else None
            return await _run(session, wanted, remove=remove, talk=None if detach else talk, detach=detach)

    return work(options, verb)


async def _run(session: Session, order: Order, *, remove: bool, detach: bool, talk: interactive.Talk | None) -> int:
    order = order._replace(name=order.name or runflags.name_of(order.image, secrets.token_hex(3)))
    plan = _plan(session, order)
    await _refuse_twin(session, order.name)
    for line in plan.warnings:
        warn(line)
    made = await launch.launch(session, plan, before_start=talk.begin if talk is not None else None)
    if detach:
        click.echo(f"{made.pod_id}\n{made.container_ids[0]}")
        return 0
    container_id = made.container_ids[0]
    is_left = False
    try:
        await _attend(session, container_id, talk)
        return int((await launch.wait_exit(session, container_id)).exit_code)
    except Detached:
        is_left = True
        tell(f"pod {order.name} goes on; kpod attach comes back to it, kpod rm -f ends it")
        return 0
    finally:
        if not is_left:
            await _end(session, plan, made, remove=remove)


async def _end(session: Session, plan: PodPlan, made: launch.Launched, *, remove: bool) -> None:
    pod = pb.PodSandbox(id=made.pod_id, metadata=plan.sandbox.metadata, labels=plan.sandbox.labels)
    end = launch.remove_pod(session, pod) if remove else launch.stop_pod(session, made.pod_id, grace_s=GRACE_S)
    await cleanup(end, what=f"pod {plan.sandbox.metadata.name}")


def _plan(session: Session, order: Order) -> PodPlan:
    pod: Pod = runflags.run_pod(order, os.environ)
    try:
        check_names(pod)
    except Invalid as error:
        raise Invalid("--name", error.got, error.expected) from None
    uid = str(uuid.uuid4())
    meta = pod.metadata
    origin = Origin(
        uid=uid,
        made_by="run",
        log_dir=str(places.log_directory(session.settings, namespace=meta.namespace, name=meta.name, uid=uid)),
        volumes_dir=str(places.volumes_directory(session.settings, uid)),
    )
    plan = make_plan(pod, origin)
    if name := runflags.parse_user(order.user).name:
        plan.containers[0].config.linux.security_context.run_as_username = name
    return plan


async def _refuse_twin(session: Session, name: str) -> None:
    """Raise Exists when a pod of kpod's namespace has the name: the runtime itself tells pods apart by uid too."""
    for pod in (await everything(session)).pods:
        if pod.metadata.name == name and pod.metadata.namespace == "default":
            raise Exists("pod", name, f"pod {pod.id[:12]}")


async def _attend(session: Session, container_id: str, talk: interactive.Talk | None) -> None:
    """Print the output until the container has ended; an interrupt stops it, a second one kills it. Raises Detached."""
    output = logs.show(session, container_id, follow=True) if talk is None else talk.go_on()
    with _presses() as presses:
        await first(output, _stop_on(session, container_id, presses))


async def _stop_on(session: Session, container_id: str, presses: "asyncio.Queue[int]") -> None:
    await presses.get()
    await first(
        launch.stop_container(session, container_id, grace_s=GRACE_S),
        _kill_on(session, container_id, presses),
    )
    await asyncio.Event().wait()  # the log is still read to its end


async def _kill_on(session: Session, container_id: str, presses: "asyncio.Queue[int]") -> None:
    await presses.get()
    await launch.stop_container(session, container_id, grace_s=0)


@contextmanager
def _presses() -> Iterator["asyncio.Queue[int]"]:
    """SIGINT and SIGTERM as entries of a queue, while the block runs."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    with signals.heard((signal.SIGINT, signal.SIGTERM), queue.put_nowait):
        yield queue
