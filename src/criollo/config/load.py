"""Files, environment and flags → `Settings`, with the origin of every value.

Order, later wins key by key: defaults, the file, its drop-ins, `CONTAINER_*` of the environment, overrides (flags).
Nothing here looks at the host beyond the files it is told to read; `host.settle_on_host` does that.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from criollo.config.check import check
from criollo.config.draft import Draft, from_text, typed
from criollo.config.files import CRIO_SOCKET, are_crios, drop_ins, read_toml
from criollo.config.keys import Setting
from criollo.config.places import Place, all_settings, find_setting
from criollo.config.settings import Settings, defaults
from criollo.config.settle import settle
from criollo.errors import Invalid

RUNTIMES_ENVIRONMENT: Final = "CONTAINER_RUNTIMES"
_HANDLER_FIELDS: Final = (
    "runtime_path",
    "runtime_root",
    "runtime_type",
    "privileged_without_host_devices",
    "runtime_config_path",
    "container_min_memory",
)


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration as the program uses it."""

    settings: Settings
    origins: Mapping[str, str]  # "crio.api.listen" → the file, variable or flag that set it; absent: default
    warnings: tuple[str, ...] = ()  # one line each; log them once at start
    files: tuple[Path, ...] = ()  # in the order they were applied
    log_format: str = "text"  # or "json"


def load(
    conf: Path | None,
    conf_dir: Path | None,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, object],
    systemd: bool | None = None,
) -> Loaded:
    """The settings of a file and a directory of drop-ins; None means none (`find_default` finds the usual ones).

    `overrides` maps dotted keys (`crio.api.listen`) to values; a text is read as a flag would be, lists of texts fill
    lists. `systemd` says whether it is PID 1; None: look.

    Raises:
        Invalid: a file that is missing or malformed, or a value that cannot be; the message names file and key.
    """
    draft, files = Draft(), []
    if are_crios(conf, conf_dir):
        draft.take(_nested(("api", "listen"), CRIO_SOCKET), "default of CRI-O")
    for path, document in _documents(conf, conf_dir):
        draft.take(document, str(path))
        files.append(path)
    for name, (place, setting) in _variables().items():
        if text := environ.get(name):
            draft.take(_nested(place, from_text(setting.kind, text, name)), name)
    if handlers := environ.get(RUNTIMES_ENVIRONMENT):
        draft.take(_handlers(handlers.split(","), RUNTIMES_ENVIRONMENT), RUNTIMES_ENVIRONMENT)
    for key, value in overrides.items():
        _override(draft, key, value)
    base = defaults(
        systemd=os.path.isdir("/run/systemd/system") if systemd is None else systemd,
        selinux=os.path.exists("/sys/fs/selinux/enforce"),
    )
    settings, origins = draft.settings(base), draft.origins
    check(settings, origins)
    settled, notes = settle(settings, base, origins)
    return Loaded(settings=settled, origins=origins, warnings=(*draft.warnings, *notes), files=tuple(files))


def _documents(conf: Path | None, conf_dir: Path | None) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    if conf is not None:
        document = read_toml(conf)
        if document is None:
            raise Invalid(str(conf), "no such file", 'a configuration file; -c "" reads none')
        yield conf, document
    if conf_dir is not None:
        for path in drop_ins(conf_dir):
            document = read_toml(path)
            if document is not None:  # removed since the directory was listed
                yield path, document


def _variables() -> dict[str, tuple[Place, Setting]]:
    return {name: (place, setting) for place, setting in all_settings() for name in reversed(setting.environment)}


def _override(draft: Draft, key: str, value: object) -> None:
    if key == "crio.runtime.runtimes":
        texts = value if isinstance(value, (list, tuple)) else [str(value)]
        draft.take(_handlers([part for text in texts for part in str(text).split(",")], "--runtimes"), "--runtimes")
        return
    place = tuple(key.split("."))[1:]
    setting = find_setting(place)
    if setting is None or not key.startswith("crio."):
        raise Invalid("override", key, "a dotted key of crio.conf(5)")
    origin = f"--{setting.flag}" if setting.flag else "override"
    good = from_text(setting.kind, value, origin) if isinstance(value, str) else typed(setting.kind, value, origin)
    draft.take(_nested(place, good), origin)


def _nested(place: Place, value: object) -> dict[str, Any]:
    document: Any = value
    for name in reversed(("crio", *place)):
        document = {name: document}
    return dict(document)


def _handlers(texts: Sequence[str], origin: str) -> dict[str, Any]:
    """`name:path:root[:type[:privileged_without_host_devices[:config_path[:container_min_memory]]]]` as tables."""
    tables: dict[str, Any] = {}
    for text in texts:
        name, *fields = text.strip().split(":")
        if not 2 <= len(fields) <= len(_HANDLER_FIELDS):
            raise Invalid(origin, text, "name:runtime_path:runtime_root[:runtime_type[:...]], at most seven parts")
        table: dict[str, Any] = dict(zip(_HANDLER_FIELDS, fields, strict=False))
        if "privileged_without_host_devices" in table:
            table["privileged_without_host_devices"] = table["privileged_without_host_devices"] == "true"
        tables[name] = {key: value for key, value in table.items() if value != ""}
    return _nested(("runtime", "runtimes"), tables)
