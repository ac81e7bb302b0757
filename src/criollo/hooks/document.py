"""One hook file, bytes → checked values; schemas 1.0.0 and, as CRI-O still reads it, 0.1.0.

Unknown fields are passed over. Source: oci-hooks(5).
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from criollo.errors import Invalid
from criollo.hooks.pattern import Pattern, parse_pattern
from criollo.oci.document import convert, parse_object
from criollo.oci.runtime_spec import Hook

LIMIT_BYTES: Final = 1 << 20
ENV: Final = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)  # else nothing (CVE-2025-23266)
STAGES: Final = {  # as in the file → field of the spec; prestart is the old name of createRuntime
    "prestart": "create_runtime",
    "createRuntime": "create_runtime",
    "createContainer": "create_container",
    "startContainer": "start_container",
    "poststart": "poststart",
    "poststop": "poststop",
}


class When(NamedTuple):
    """Conditions: all that are given, or (`any_of`, schema 0.1.0) one of them; of `commands` one is enough."""

    always: bool | None = None
    annotations: tuple[tuple[Pattern, Pattern], ...] = ()
    commands: tuple[Pattern, ...] = ()
    has_bind_mounts: bool | None = None
    any_of: bool = False

    def holds(self, annotations: Mapping[str, str], command: str, *, has_bind_mounts: bool) -> bool:
        """Whether a container is meant. Without any condition none is."""
        met = [self.always] if self.always is not None else []
        if self.has_bind_mounts is not None:
            met.append(self.has_bind_mounts and has_bind_mounts)
        met += [_has(annotations, key, value) for key, value in self.annotations]
        if self.commands:
            met.append(any(each.matches(command) for each in self.commands))
        return bool(met) and (any(met) if self.any_of else all(met))


class HookFile(NamedTuple):
    """A hook, when it runs, and for which containers; `stages` are fields of `runtime_spec.Hooks`."""

    path: str
    hook: Hook
    when: When
    stages: tuple[str, ...]


def read_hook(raw: bytes, name: str) -> HookFile:
    """The hook in a file; `name` is its path.

    Raises:
        Invalid: it is none; the message has the field.
    """
    document = {key: value for key, value in parse_object(raw, what=name, limit_bytes=LIMIT_BYTES).items() if value is not None}
    version = document.get("version", "")
    if version == "1.0.0":
        return _read_current(document, name)
    if version in ("", "0.1.0"):
        return _read_first(document, name)
    raise Invalid(f"{name}.version", version, "'1.0.0' or '0.1.0'")


class _Hook(msgspec.Struct):
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] | None = None
    timeout: int | None = None


class _When(msgspec.Struct, rename="camel"):
    always: bool | None = None
    annotations: dict[str, str] = {}
    commands: tuple[str, ...] = ()
    has_bind_mounts: bool | None = None


class _Current(msgspec.Struct):
    hook: _Hook
    when: _When
    stages: tuple[str, ...]


class _First(msgspec.Struct):
    hook: str
    arguments: tuple[str, ...] = ()
    stages: tuple[str, ...] | None = None
    stage: tuple[str, ...] | None = None
    cmds: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    annotations: tuple[str, ...] | None = None
    annotation: tuple[str, ...] | None = None
    has_bind_mounts: bool | None = msgspec.field(default=None, name="hasbindmounts")


def _read_current(document: dict[str, Any], name: str) -> HookFile:
    found = convert(document, _Current, what=name)
    given, when = found.hook, found.when
    hook = Hook(path=given.path, args=given.args, env=ENV if given.env is None else given.env, timeout=given.timeout)
    conditions = When(
        always=when.always,
        annotations=tuple(
            (parse_pattern(key, f"{name}.when.annotations"), parse_pattern(value, f"{name}.when.annotations.{key}"))
            for key, value in when.annotations.items()
        ),
        commands=_patterns(when.commands, f"{name}.when.commands"),
        has_bind_mounts=when.has_bind_mounts,
    )
    return _checked(name, hook, conditions, found.stages)


def _read_first(document: dict[str, Any], name: str) -> HookFile:
    found = convert(document, _First, what=name)
    stages = _one(found.stages, found.stage, f"{name}.stages")
    if stages is None:
        raise Invalid(f"{name}.stages", None, f"some of {', '.join(STAGES)}")
    everything = Pattern(None)
    conditions = When(
        annotations=tuple(
            (everything, each)
            for each in _patterns(_one(found.annotations, found.annotation, f"{name}.annotations") or (), f"{name}.annotations")
        ),
        commands=_patterns(_one(found.cmds, found.cmd, f"{name}.cmds") or (), f"{name}.cmds"),
        has_bind_mounts=found.has_bind_mounts,
        any_of=True,
    )
    args = (found.hook, *found.arguments) if found.arguments else ()
    return _checked(name, Hook(path=found.hook, args=args, env=ENV), conditions, stages)


def _checked(name: str, hook: Hook, when: When, stages: Sequence[str]) -> HookFile:
    if not hook.path.startswith("/") or "\0" in hook.path:
        raise Invalid(f"{name}.hook.path", hook.path, "an absolute path")
    for word in hook.env:
        variable, equals, _ = word.partition("=")
        if not variable or not equals or "\0" in word:
            raise Invalid(f"{name}.hook.env", variable, "NAME=value without NUL")
    if hook.timeout is not None and hook.timeout <= 0:
        raise Invalid(f"{name}.hook.timeout", hook.timeout, "a positive number of seconds")
    for stage in stages:
        if stage not in STAGES:
            raise Invalid(f"{name}.stages", stage, f"some of {', '.join(STAGES)}")
    return HookFile(os.fspath(name), hook, when, tuple(dict.fromkeys(STAGES[stage] for stage in stages)))


def _patterns(texts: Sequence[str], field: str) -> tuple[Pattern, ...]:
    return tuple(parse_pattern(text, f"{field}[{at}]") for at, text in enumerate(texts))


def _one(first: tuple[str, ...] | None, second: tuple[str, ...] | None, field: str) -> tuple[str, ...] | None:
    if first is not None and second is not None:
        raise Invalid(field, "two lists", f"{field.rpartition('.')[2]} in one spelling, not in both")
    return second if first is None else first


def _has(annotations: Mapping[str, str], key: Pattern, value: Pattern) -> bool:
    return any(key.matches(name) and value.matches(text) for name, text in annotations.items())
