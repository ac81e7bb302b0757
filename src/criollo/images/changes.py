"""Words of a Dockerfile that set an image's config: what `kpod import --change` takes. Pure.

    ENV A=b C="d e"    ENV A b    LABEL a=b    CMD ["sh", "-c", "x"]    CMD x y    ENTRYPOINT …    USER u[:g]
    WORKDIR /srv    EXPOSE 80/tcp 53/udp    VOLUME /a /b    VOLUME ["/a"]    STOPSIGNAL SIGTERM

`WORD=value` is the same as `WORD value`. Source: Dockerfile reference; podman-import(1).
"""

import json
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any, Final

from criollo.errors import Invalid

_FIELD: Final = "--change"
_SPLIT: Final = re.compile(r"\s*([A-Za-z]+)(?:\s*=\s*|\s+)(.*)", re.DOTALL)
_NAME: Final = re.compile(r"[^=\s\0]+")
_PORT: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_SIGNAL: Final = re.compile(r"(?:SIG)?[A-Z][A-Z0-9+-]{1,15}|[1-9][0-9]?", re.IGNORECASE)
_MAX_PORTS: Final = 1000

Config = dict[str, Any]


def apply_changes(changes: Sequence[str], config: Config | None = None) -> Config:
    """The `config` member of an image config after the changes, in order.

    Raises:
        Invalid: a word that is none of these, or a value it does not take.
    """
    made = dict(config or {})
    for change in changes:
        found = _SPLIT.fullmatch(change)
        work = _WORDS.get(found[1].upper()) if found else None
        if found is None or work is None:
            raise Invalid(_FIELD, change, f"one of {', '.join(_WORDS)} and its value")
        if "\0" in change:
            raise Invalid(_FIELD, change, "text without NUL")
        work(made, found[2].strip(), change)
    try:
        json.dumps(made, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Invalid(_FIELD, error.object[error.start : error.end], "text that is UTF-8") from None
    return made


def _env(config: Config, value: str, change: str) -> None:
    pairs = _pairs(value, change)
    kept = [each for each in config.get("Env", []) if each.partition("=")[0] not in pairs]
    config["Env"] = kept + [f"{name}={text}" for name, text in pairs.items()]


def _label(config: Config, value: str, change: str) -> None:
    config["Labels"] = {**config.get("Labels", {}), **_pairs(value, change)}


def _command(key: str) -> Callable[[Config, str, str], None]:
    def work(config: Config, value: str, change: str) -> None:
        config[key] = _list(value, change) if value.startswith("[") else ["/bin/sh", "-c", _filled(value, change)]

    return work


def _user(config: Config, value: str, change: str) -> None:
    if not _NAME.fullmatch(value):
        raise Invalid(_FIELD, change, "USER and a user, or user:group")
    config["User"] = value


def _workdir(config: Config, value: str, change: str) -> None:
    value = _filled(value, change)
    before = config.get("WorkingDir") or "/"
    config["WorkingDir"] = value if value.startswith("/") else f"{before.rstrip('/')}/{value}"


def _expose(config: Config, value: str, change: str) -> None:
    ports: dict[str, dict[str, str]] = dict(config.get("ExposedPorts", {}))
    for word in _filled(value, change).split():
        found = _PORT.fullmatch(word)
        first = int(found[1]) if found else 0
        last = int(found[2] or first) if found else 0
        if found is None or not 1 <= first <= last <= 65535 or last - first >= _MAX_PORTS:
            raise Invalid(_FIELD, change, "EXPOSE and ports such as 80, 53/udp or 8000-8010/tcp")
        ports |= {f"{port}/{(found[3] or 'tcp').lower()}": {} for port in range(first, last + 1)}
    config["ExposedPorts"] = ports


def _volume(config: Config, value: str, change: str) -> None:
    paths = _list(value, change) if value.startswith("[") else _filled(value, change).split()
    if not paths or not all(path.startswith("/") for path in paths):
        raise Invalid(_FIELD, change, "VOLUME and absolute paths")
    config["Volumes"] = {**config.get("Volumes", {}), **{path: {} for path in paths}}


def _stop_signal(config: Config, value: str, change: str) -> None:
    if not _SIGNAL.fullmatch(value):
        raise Invalid(_FIELD, change, "STOPSIGNAL and a signal, such as SIGTERM or 15")
    config["StopSignal"] = value.upper()


def _pairs(value: str, change: str) -> dict[str, str]:
    """`A=b C="d e"`, or `A b` where there is no equals sign in the first word."""
    first, _, rest = value.partition(" ")
    if "=" not in first:
        if not _NAME.fullmatch(first) or not rest.strip():
            raise Invalid(_FIELD, change, "NAME=value, several with blanks between them")
        return {first: rest.strip()}
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise Invalid(_FIELD, change, f"quotes that are closed ({error})") from None
    pairs = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise Invalid(_FIELD, change, "NAME=value, several with blanks between them")
        pairs[name] = text
    return pairs


def _list(value: str, change: str) -> list[str]:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(word, str) and "\0" not in word for word in found):
        raise Invalid(_FIELD, change, 'a JSON list of texts, such as ["sh", "-c", "true"]')
    return found


def _filled(value: str, change: str) -> str:
    if not value:
        raise Invalid(_FIELD, change, "a value")
    return value


_WORDS: Final[dict[str, Callable[[Config, str, str], None]]] = {
    "CMD": _command("Cmd"),
    "ENTRYPOINT": _command("Entrypoint"),
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
