"""Every setting as a flag of `crio`, derived from the settings tree.

A flag carries text; the text is read where files are read, so that a wrong value is refused in one place and in the same
words. `--flag` alone means true for a boolean, as `--flag=false` means false; lists repeat or use commas.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import click

from criollo.config.keys import Kind, Setting
from criollo.config.places import Place, all_settings, dotted

RUNTIMES: Final = "runtimes"
_RUNTIMES_KEY: Final = "crio.runtime.runtimes"
_ALIASES: Final = {"timezone": "--tz"}
_METAVARS: Final = {Kind.STRINGS: "LIST", Kind.INT: "NUMBER", Kind.BOOL: "BOOL", Kind.DURATION: "DURATION", Kind.SIZE: "SIZE"}


def setting_flags() -> Iterator[click.Option]:
    """One option per setting that has a flag, and `--runtimes`."""
    for _, setting in _flagged():
        yield click.Option(
            _names(setting),
            multiple=setting.kind is Kind.STRINGS,
            metavar=_METAVARS.get(setting.kind, "TEXT"),
            help=f"{setting.key.help} [{', '.join(setting.environment)}]",
            type=click.STRING,
        )
    yield click.Option(
        [f"--{RUNTIMES}"],
        multiple=True,
        metavar="LIST",
        help="Runtime handlers: name:path:root[:type[:privileged_without_host_devices[:config_path[:min_memory]]]].",
    )


def overrides(parameters: Mapping[str, object]) -> dict[str, object]:
    """The settings that flags were given for, as `config.load.load` takes them."""
    found: dict[str, object] = {}
    for place, setting in _flagged():
        value = parameters.get(_parameter(setting.flag))
        if isinstance(value, tuple):
            if value:
                found[dotted(place)] = _split(value)
        elif value is not None:
            found[dotted(place)] = value
    if handlers := parameters.get(RUNTIMES):
        found[_RUNTIMES_KEY] = handlers
    return found


def with_values(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--flag` of a boolean written as `--flag=true`; what follows `--` is left alone."""
    booleans = {f"--{setting.flag}" for _, setting in _flagged() if setting.kind is Kind.BOOL}
    changed = list(arguments)
    for index, argument in enumerate(changed):
        if argument == "--":
            break
        if argument in booleans:
            changed[index] = f"{argument}=true"
    return changed


def _flagged() -> Iterator[tuple[Place, Setting]]:
    return ((place, setting) for place, setting in all_settings() if setting.flag)


def _names(setting: Setting) -> list[str]:
    names = [_parameter(setting.flag), f"--{setting.flag}"]
    if setting.key.short:
        names.append(f"-{setting.key.short}")
    if setting.name in _ALIASES:
        names.append(_ALIASES[setting.name])
    return names


def _parameter(flag: str) -> str:
    return flag.replace("-", "_")


def _split(values: tuple[str, ...]) -> list[str]:
    """One value may be a comma list; repeated ones are taken as they are, so that they may hold commas."""
    parts = values[0].split(",") if len(values) == 1 and values[0] else values
    return [part.strip() for part in parts if part.strip()]
