"""The flags of `kpod run` as a manifest: what runs is a pod like any other, so that run and play share one path.

Pure. The words of `-v`, `-p`, `-e` and `--user` are docker's.
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from criollo.errors import Invalid
from criollo.kpod import quantities
from criollo.kpod.manifest import (
    Amounts,
    Container,
    ContainerSecurity,
    HostPath,
    Limits,
    Metadata,
    Pod,
    PodSecurity,
    Port,
    Spec,
    Variable,
    Volume,
    VolumeMount,
)

PULL_POLICIES: Final = {"missing": "IfNotPresent", "always": "Always", "never": "Never"}

_PORT: Final = re.compile(
    r"(?:(?:\[(?P<ip6>[0-9a-fA-F:.]+)\]|(?P<ip4>[0-9.]+)):)?(?P<host>[0-9]{1,5}):(?P<inside>[0-9]{1,5})(?:/(?P<protocol>[a-z]+))?"
)
_PROPAGATIONS: Final = {"rprivate": "None", "rslave": "HostToContainer", "rshared": "Bidirectional"}
_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_MAX_ID: Final = (1 << 31) - 1  # as the CRI takes users
_NOT_IN_A_NAME: Final = re.compile(r"[^a-z0-9]+")


class Order(NamedTuple):
    """What the command line of `kpod run` asks for, as it was written."""

    image: str
    command: tuple[str, ...] = ()
    name: str = ""
    env: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    network: str = "pod"
    handler: str = ""
    user: str = ""
    workdir: str = ""
    read_only: bool = False
    privileged: bool = False
    memory: str = ""
    cpus: str = ""
    pull: str = "missing"
    stdin: bool = False
    tty: bool = False


class User(NamedTuple):
    """`--user`: numbers where numbers were given. A manifest has no field for names."""

    uid: int | None
    gid: int | None
    name: str


def run_pod(order: Order, environ: Mapping[str, str]) -> Pod:
    """The manifest of an order; `environ` gives the variables that `-e NAME` passes on.

    Raises:
        Invalid: a flag that cannot be read; the message names it.
    """
    volumes = [_volume(text, index) for index, text in enumerate(order.volumes)]
    user = parse_user(order.user)
    if order.workdir and not order.workdir.startswith("/"):
        raise Invalid("--workdir", order.workdir, "an absolute path")
    container = Container(
        name=order.name,
        image=order.image,
        image_pull_policy=PULL_POLICIES[order.pull],
        args=tuple(_literal(word) for word in order.command),
        working_dir=order.workdir,
        env=tuple(_variables(order.env, environ)),
        ports=tuple(parse_port(text) for text in order.ports),
        volume_mounts=tuple(mount for _, mount in volumes),
        security_context=ContainerSecurity(privileged=order.privileged, read_only_root_filesystem=order.read_only),
        resources=Limits(limits=_limits(order)),
        stdin=order.stdin,
        stdin_once=order.stdin and not order.tty,  # a terminal has its own end, and may be left and come back to
        tty=order.tty,
    )
    spec = Spec(
        containers=(container,),
        volumes=tuple(volume for volume, _ in volumes),
        host_network=order.network == "host",
        runtime_class_name=order.handler,
        restart_policy="Never",
        security_context=PodSecurity(run_as_user=user.uid, run_as_group=user.gid),
        termination_grace_period_seconds=10,
    )
    return Pod(metadata=Metadata(name=order.name), spec=spec)


def name_of(image: str, suffix: str) -> str:
    """A name for a pod that was given none: the last word of the image, and something that tells it apart."""
    word = image.partition("@")[0].rpartition("/")[2].partition(":")[0].lower()
    word = _NOT_IN_A_NAME.sub("-", word)[:40].strip("-") or "pod"
    return f"{word}-{suffix}"


def parse_user(text: str) -> User:
    """`UID`, `UID:GID`, `NAME` or `NAME:GID`. Raises Invalid."""
    user, colon, group = text.partition(":")
    if colon and not (_NUMBER.fullmatch(group) and int(group) <= _MAX_ID):
        raise Invalid("--user", text, "a group as a number, such as 1000:1000")
    if colon and not user:
        raise Invalid("--user", text, "a user before the group")
    is_number = _NUMBER.fullmatch(user) is not None and int(user) <= _MAX_ID
    if not is_number and (user.startswith("-") or user.isdecimal()):
        raise Invalid("--user", text, f"a name, or a number from 0 to {_MAX_ID}")
    return User(int(user) if is_number else None, int(group) if colon else None, "" if is_number else user)


def parse_port(text: str) -> Port:
    """`[IP:]HOST:INSIDE[/tcp|udp|sctp]`. Raises Invalid."""
    match = _PORT.fullmatch(text)
    if match is None or (match["protocol"] or "tcp") not in ("tcp", "udp", "sctp"):
        raise Invalid("--publish", text, "[IP:]HOST:CONTAINER[/tcp|udp|sctp], such as 8080:80")
    host, inside = int(match["host"]), int(match["inside"])
    if not (1 <= host <= 65535 and 1 <= inside <= 65535):
        raise Invalid("--publish", text, "ports from 1 to 65535")
    address = match["ip6"] or match["ip4"] or ""
    return Port(container_port=inside, host_port=host, protocol=(match["protocol"] or "tcp").upper(), host_ip=address)


def _volume(text: str, index: int) -> tuple[Volume, VolumeMount]:
    source, colon, rest = text.partition(":")
    target, _, words = rest.partition(":")
    if not colon or not target.startswith("/"):
        raise Invalid("--volume", text, "SOURCE:/PATH/IN/CONTAINER, or with :ro after it")
    if not source.startswith(("/", ".")):
        raise Invalid("--volume", text, "a source that begins with / or ./; named volumes do not exist here")
    name, options = f"v{index}", words.split(",") if words else []
    for word in options:
        if word not in ("ro", "rw", *_PROPAGATIONS):
            raise Invalid("--volume", text, f"the options ro, rw, {', '.join(_PROPAGATIONS)}")
    propagation = next((_PROPAGATIONS[word] for word in options if word in _PROPAGATIONS), "None")
    mount = VolumeMount(name=name, mount_path=target, read_only="ro" in options, mount_propagation=propagation)
    return Volume(name=name, host_path=HostPath(path=os.path.abspath(source))), mount


def _variables(texts: Iterable[str], environ: Mapping[str, str]) -> Iterable[Variable]:
    """`NAME=VALUE`, or `NAME` for the value it has here; one that has none is left out."""
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise Invalid("--env", text, "NAME=VALUE")
        if equals or name in environ:
            yield Variable(name=name, value=_literal(value if equals else environ[name]))


def _literal(text: str) -> str:
    """The text so that no `$(NAME)` in it is replaced: the shell was the one to expand."""
    return text.replace("$", "$$")


def _limits(order: Order) -> Amounts:
    return Amounts(
        memory=quantities.size_bytes(order.memory, "--memory") if order.memory else None,
        cpu=f"{quantities.cpus(order.cpus, '--cpus')}m" if order.cpus else None,
    )
