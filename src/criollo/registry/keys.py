"""Keys of configuration files that others read too: which are known, which were meant, which may be of a newer reader.

The readers of containers/image take a key in any case, so we do. A key that is like a known one was meant to say something,
which must not be lost; one like no other is told in the log.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from criollo.errors import Invalid, printable
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_NEAR: Final = 0.75
_LONGEST_SHOWN: Final = 255


def folded(table: Mapping[str, Any], known: Iterable[str], where: str) -> dict[str, Any]:
    """The known keys of a table under their names as `known` spells them, and their values; others are left out.

    Raises:
        Invalid: a key is there twice, in two spellings.
    """
    spelt = {name.lower(): name for name in known}
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = key if key in spelt.values() else spelt.get(key.lower())
        if name is None:
            continue
        if name in found:
            raise Invalid(printable(where), f"{name} twice", "each key once, in one spelling")
        found[name] = value
    return found


def check_unknown(table: Mapping[str, Any], known: Iterable[str], where: str, *, elsewhere: Iterable[str] = ()) -> None:
    """Refuse a key that was meant as one of the known, or that belongs `elsewhere`; tell any other in the log.

    Raises:
        Invalid: there is one; the message names the nearest.
    """
    names = sorted(known)
    lower = {name.lower() for name in names}
    for key in table:
        if key.lower() in lower:
            continue
        import difflib  # a quarter of a MiB that only a key which is not known needs

        near = difflib.get_close_matches(key[:64].lower().replace("_", "-"), names, n=1, cutoff=_NEAR)
        if near or key.lower() in elsewhere:
            hint = f"{near[0]}? All keys are " if near else "one of "
            raise Invalid(printable(where), printable(key[:_LONGEST_SHOWN]), hint + ", ".join(names))
        log.warning("unknown key in registries.conf", key=printable(key[:_LONGEST_SHOWN]), file=printable(where))
