"""The process part of a spec: arguments, environment, working directory, user, limits, capabilities.

Source: OCI runtime-spec, config.md, Process; CRI v1, ContainerConfig.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from criollo.errors import Invalid
from criollo.model.container import ContainerConfig
from criollo.oci import runtime_spec
from criollo.security import capabilities
from criollo.specgen import paths
from criollo.specgen.host import SYS_RESOURCE, HostFacts
from criollo.specgen.request import ImageDefaults, SpecRequest
from criollo.specgen.rlimits import rlimits

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UMASK: Final = 0o022

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_OOM_SCORES: Final = range(-1000, 1001)  # linux/oom.h


def process(request: SpecRequest, host: HostFacts) -> tuple[runtime_spec.Process, list[str]]:
    """The first process, and notes on what differs from what was asked.

    Raises:
        Invalid, Unsupported: as the parts below say.
    """
    env, env_notes = environment(request)
    limits, limit_notes = rlimits(request.defaults.ulimits, ceilings=host.rlimits, may_raise=host.may_raise)
    score, score_notes = oom_score(request.config.resources.oom_score_adj, host)
    granted, granted_notes = _capabilities(request, host)
    no_new_privs, privs_notes = _no_new_privileges(request)
    user, umask = request.user, UMASK if request.umask is None else request.umask
    return runtime_spec.Process(
        terminal=request.config.tty,
        user=runtime_spec.User(uid=user.uid, gid=user.gid, umask=umask, additional_gids=user.groups),
        args=arguments(request.config, request.image),
        env=env,
        cwd=working_directory(request.config, request.image),
        capabilities=granted,
        rlimits=limits,
        no_new_privileges=no_new_privs,
        apparmor_profile="" if request.privileged else request.confinement.apparmor_profile,
        oom_score_adj=score,
        selinux_label=request.confinement.process_label,
        exec_cpu_affinity=runtime_spec.CpuAffinity(initial=request.exec_cpu) if request.exec_cpu else None,
    ), [*env_notes, *limit_notes, *score_notes, *granted_notes, *privs_notes]


def exec_process(first: runtime_spec.Process, argv: Sequence[str], *, terminal: bool = False) -> runtime_spec.Process:
    """The process of an exec: the container's own user, environment and privileges, with other arguments."""
    return runtime_spec.Process(
        terminal=terminal,
        user=first.user,
        args=_checked_args(tuple(argv), "cmd"),
        env=(*(word for word in first.env if not word.startswith("TERM=")), "TERM=xterm") if terminal else first.env,
        cwd=first.cwd,
        capabilities=first.capabilities,
        rlimits=first.rlimits,
        no_new_privileges=first.no_new_privileges,
        apparmor_profile=first.apparmor_profile,
        oom_score_adj=first.oom_score_adj,
        selinux_label=first.selinux_label,
        exec_cpu_affinity=first.exec_cpu_affinity,
    )


def arguments(config: ContainerConfig, image: ImageDefaults) -> tuple[str, ...]:
    """`command` replaces the image's Entrypoint and drops its Cmd; `args` alone replace its Cmd.

    Raises:
        Invalid: nothing to run, or an argument that no program can be given.
    """
    args = _words(config, image)
    if not args or not args[0]:
        raise Invalid("command", args, "a command: neither the request nor the image names one")
    return _checked_args(args, "command")


def runs_systemd(config: ContainerConfig, image: ImageDefaults) -> bool:
    """Whether the first process is an init system, which wants filesystems of its own where it is used to have them."""
    program = next(iter(_words(config, image)), "")
    return program.endswith("/sbin/init") or program.rpartition("/")[2] == "systemd"


def usual_stop_signal(config: ContainerConfig, image: ImageDefaults) -> str:
    """The signal that ends a container which names none: systemd powers off at this one only. Source: systemd(1), Signals."""
    return "SIGRTMIN+3" if runs_systemd(config, image) else "SIGTERM"


def environment(request: SpecRequest) -> tuple[tuple[str, ...], list[str]]:
    """Configured, then image, then requested variables; a later one of the same name takes the earlier one's place.

    Values that are not UTF-8 cannot be written into a spec; their bad bytes become U+FFFD, and a note says so.

    Raises:
        Invalid: a name that is empty or has `=`, or a NUL anywhere.
    """
    merged = {"PATH": DEFAULT_PATH}
    if request.config.tty:
        merged["TERM"] = "xterm"
    if request.pod.hostname:
        merged["HOSTNAME"] = request.pod.hostname
    if runs_systemd(request.config, request.image):
        merged["container"] = "crio"  # systemd's question where it runs: systemd-detect-virt(1)
    notes: list[str] = []
    for source, words in (("default_env", request.defaults.env), ("image config Env", request.image.env)):
        merged.update(_split(words, source, notes))
    for name, value in request.config.env:
        _check_variable(name, value, "envs")
        merged[name] = value
    for name, value in request.env_if_unset:
        merged.setdefault(name, value)
    merged.setdefault("HOME", request.user.home)
    paths.check_text(merged["HOME"], "HOME")
    return tuple(_encodable(f"{name}={value}", name, notes) for name, value in merged.items()), notes


def working_directory(config: ContainerConfig, image: ImageDefaults) -> str:
    """The request's, else the image's, else `/`.

    Raises:
        Invalid: not absolute, or on or below /proc, /sys or /dev.
    """
    field = "working_dir" if config.working_dir else "image config WorkingDir"
    return paths.check_outside_kernel(config.working_dir or image.working_dir or "/", field)


def oom_score(asked: int, host: HostFacts) -> tuple[int, list[str]]:
    """The out-of-memory score to set; without CAP_SYS_RESOURCE never below the daemon's own.

    Raises:
        Invalid: outside -1000 to 1000.
    """
    if asked not in _OOM_SCORES:
        raise Invalid("resources.oom_score_adj", asked, "a number from -1000 to 1000")
    if asked >= host.oom_score_adj or host.may_raise:
        return asked, []
    note = f"oom_score_adj is {host.oom_score_adj} instead of {asked}: the daemon has no {SYS_RESOURCE} to lower it"
    return host.oom_score_adj, [note]


def _words(config: ContainerConfig, image: ImageDefaults) -> tuple[str, ...]:
    return (*config.command, *config.args) if config.command else (*image.entrypoint, *(config.args or image.cmd))


def _capabilities(request: SpecRequest, host: HostFacts) -> tuple[runtime_spec.Capabilities, list[str]]:
    policy = capabilities.Policy(
        defaults=request.defaults.capabilities,
        add_inheritable=request.defaults.add_inheritable_capabilities,
        held=host.capabilities,
    )
    asked = request.config.security.capabilities
    granted = capabilities.decide(asked, policy=policy, privileged=request.privileged, is_root=request.user.uid == 0)
    notes = [f"default capability {name} is left out: the daemon does not hold it" for name in granted.withheld]
    return runtime_spec.Capabilities(
        bounding=granted.bounding,
        effective=granted.effective,
        inheritable=granted.inheritable,
        permitted=granted.permitted,
        ambient=granted.ambient,
    ), notes


def _no_new_privileges(request: SpecRequest) -> tuple[bool, list[str]]:
    if not request.config.security.no_new_privs:
        return False, []
    if request.privileged:
        return True, ["no_new_privs is set for a privileged container: it has all capabilities from the beginning"]
    return True, []


def _checked_args(args: tuple[str, ...], field: str) -> tuple[str, ...]:
    for arg in args:
        if "\0" in arg or _SURROGATE.search(arg):
            raise Invalid(field, arg, "arguments of UTF-8 text without NUL")
    if not args:
        raise Invalid(field, args, "at least one argument")
    return args


def _split(words: Iterable[str], source: str, notes: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            notes.append(f"{source}: a variable without a value is left out")
            continue
        _check_variable(name, value, source)
        found[name] = value
    return found


def _check_variable(name: str, value: str, source: str) -> None:
    """The value is never shown: it may be a secret."""
    if not name or "=" in name or "\0" in name or _SURROGATE.search(name):
        raise Invalid(source, name, "a variable name without '=' and NUL")
    if "\0" in value:
        raise Invalid(f"{source}, variable {name}", "a value with NUL", "a value without NUL")


def _encodable(word: str, name: str, notes: list[str]) -> str:
    if not _SURROGATE.search(word):
        return word
    notes.append(f"the value of variable {name} is not UTF-8: bytes that are not were replaced, because a runtime spec is JSON")
    return word.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
