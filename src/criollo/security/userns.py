"""Which ids a pod's user namespace maps, when an annotation or the configuration asks for one. Pure.

    userns-mode.crio.io: auto[:size=N;uidmapping=…;gidmapping=…;keep-id=true|map-to-root=true]
                         private[:uidmapping=…;gidmapping=…]        without mappings: those of the configuration
    mappings:            inside:host:length[,…]

`auto` takes a free piece of the ranges that /etc/subuid and /etc/subgid give the user `containers`; no two pods get the same
ids. What is mapped besides (a mapping by name; the pod's own user with keep-id, as root with map-to-root) stays as it is, and
the piece fills what is left of 0 to N-1. The root of the host is never mapped.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from criollo.errors import Exhausted, Invalid, Unsupported
from criollo.model.pod import IdMapping, NamespaceMode, PodSecurity, UserNamespace

ANNOTATION: Final = "userns-mode.crio.io"
OWNER: Final = "containers"
DEFAULT_SIZE: Final = 65536
MAX_MAPPINGS: Final = 340  # user_namespaces(7)
LAST_ID: Final = (1 << 32) - 2

_FIELD: Final = f"annotation {ANNOTATION}"
_KEYS: Final = {
    "auto": frozenset({"size", "uidmapping", "gidmapping", "keep-id", "map-to-root"}),
    "private": frozenset({"uidmapping", "gidmapping"}),
}
_MAPPING: Final = re.compile(r"([0-9]{1,10}):([0-9]{1,10}):([0-9]{1,10})")
_BOOLEANS: Final = {"true": True, "false": False}

Piece = tuple[int, int]
"""The first id, and how many."""


class NodeIds(NamedTuple):
    """What the node gives: mappings and least host ids of the configuration (-1: none), and the ranges for `auto`."""

    uids: tuple[IdMapping, ...] = ()
    gids: tuple[IdMapping, ...] = ()
    least_uid: int = -1
    least_gid: int = -1
    uid_ranges: tuple[Piece, ...] = ()
    gid_ranges: tuple[Piece, ...] = ()


class UsernsWish(NamedTuple):
    """What an annotation says."""

    is_auto: bool
    size: int = DEFAULT_SIZE
    uids: tuple[IdMapping, ...] = ()
    gids: tuple[IdMapping, ...] = ()
    keeps_id: bool = False
    maps_to_root: bool = False


class _Kind(NamedTuple):
    """User or group ids: what is wanted of them, and what the node has."""

    name: str
    given: tuple[IdMapping, ...]
    own: tuple[int, ...]  # of the pod; the first is its user or group
    least: int
    ranges: tuple[Piece, ...]
    used: tuple[IdMapping, ...]


def configured(uids: str, gids: str, least_uid: int, least_gid: int) -> NodeIds:
    """What the configuration says.

    Raises:
        Invalid: a mapping is malformed, or one of the two is missing.
    """
    found = NodeIds(parse_mappings(uids, "uid_mappings"), parse_mappings(gids, "gid_mappings"), least_uid, least_gid)
    if bool(found.uids) != bool(found.gids):
        raise Invalid("gid_mappings" if found.uids else "uid_mappings", "", "mappings, since the other has some")
    return found


def parse(text: str) -> UsernsWish:
    """What the annotation says.

    Raises:
        Invalid: something else than the module's grammar.
    """
    mode, _, rest = text.partition(":")
    if mode not in _KEYS:
        raise Invalid(_FIELD, text, "auto or private, with options after a colon")
    given = dict(_option(part, mode) for part in rest.split(";") if part)
    if len(given) != sum(1 for part in rest.split(";") if part):
        raise Invalid(_FIELD, text, "every option once")
    wish = UsernsWish(
        is_auto=mode == "auto",
        size=_size(given.get("size", str(DEFAULT_SIZE))),
        uids=parse_mappings(given.get("uidmapping", ""), f"{_FIELD} uidmapping"),
        gids=parse_mappings(given.get("gidmapping", ""), f"{_FIELD} gidmapping"),
        keeps_id=_boolean(given, "keep-id"),
        maps_to_root=_boolean(given, "map-to-root"),
    )
    if wish.keeps_id and wish.maps_to_root:
        raise Invalid(_FIELD, text, "keep-id or map-to-root, not both")
    return wish


def parse_mappings(text: str, field: str) -> tuple[IdMapping, ...]:
    """`0:100000:65536,…` as mappings; none for an empty text.

    Raises:
        Invalid: malformed, out of range, overlapping, or too many.
    """
    found = []
    for part in text.split(",") if text else ():
        match = _MAPPING.fullmatch(part)
        inside, host, length = (int(number) for number in match.groups()) if match else (0, 0, 0)
        if not length or max(inside, host) + length - 1 > LAST_ID:
            raise Invalid(field, part, "inside:host:length, of ids of 32 bits")
        found.append(IdMapping(container_id=inside, host_id=host, length=length))
    return _checked(found, field)


def parse_ranges(content: bytes, owner: str = OWNER) -> tuple[Piece, ...]:
    """The ranges of one owner in /etc/subuid or /etc/subgid; lines that are none are passed over. Source: subuid(5)."""
    found = []
    for line in content.splitlines():
        fields = line.strip().split(b":")
        if len(fields) == 3 and fields[0] == owner.encode() and all(len(f) <= 10 and f.isdigit() for f in fields[1:]):
            first, count = int(fields[1]), int(fields[2])
            if count and 0 < first <= first + count - 1 <= LAST_ID:
                found.append((first, count))
    return tuple(found)


def decide(text: str | None, security: PodSecurity, node: NodeIds, used: Iterable[UserNamespace]) -> UserNamespace | None:
    """The user namespace of a pod with this annotation (None: without); `used` are those of all other pods.

    Raises:
        Invalid: the annotation, or a mapping that the configuration forbids.
        Unsupported: the node has no ranges, or no mappings.
        Exhausted: all ranges are taken.
    """
    asked = security.namespaces.user
    if asked is not None and asked.mode is not NamespaceMode.NODE:
        _check_least(asked, node, security)
        return asked
    if asked is not None or (text is None and not node.uids):
        return asked
    taken = tuple(used)
    users = tuple(each for each in (security.run_as_user,) if each is not None)
    groups = (*(each for each in (security.run_as_group,) if each is not None), *security.supplemental_groups)
    if text is None:
        return _made(node.uids, node.gids)
    wish = parse(text)
    _check_given(wish, security, node)
    uids = _Kind("user", wish.uids, users, node.least_uid, node.uid_ranges, _flat(each.uids for each in taken))
    gids = _Kind("group", wish.gids, groups, node.least_gid, node.gid_ranges, _flat(each.gids for each in taken))
    if wish.is_auto:
        return _made(_automatic(wish, uids), _automatic(wish, gids))
    if not (wish.uids or wish.gids or node.uids):
        raise Unsupported(f"cannot make a user namespace: {_FIELD} {text} has no mappings, and neither has the configuration")
    return _made(*((wish.uids or wish.gids, wish.gids or wish.uids) if wish.uids or wish.gids else (node.uids, node.gids)))


def _automatic(wish: UsernsWish, kind: _Kind) -> tuple[IdMapping, ...]:
    """The mappings that are given, and a free piece of the ranges for the rest."""
    fixed = list(kind.given)
    if kind.own and wish.keeps_id:
        fixed += [IdMapping(container_id=each, host_id=each, length=1) for each in dict.fromkeys(kind.own)]
    if kind.own and wish.maps_to_root:
        fixed.append(IdMapping(container_id=0, host_id=kind.own[0], length=1))
    field = f"{_FIELD} {kind.name} mappings"
    _checked(fixed, field)
    _check_hosts(fixed, kind)
    holes = _without([(0, wish.size)], [(each.container_id, each.length) for each in fixed])
    needed = sum(length for _, length in holes)
    first = _free(needed, kind, [(each.host_id, each.length) for each in fixed]) if needed else 0
    for inside, length in holes:
        fixed.append(IdMapping(container_id=inside, host_id=first, length=length))
        first += length
    return _checked(sorted(fixed, key=lambda each: each.container_id), field)


def _free(length: int, kind: _Kind, besides: Iterable[Piece]) -> int:
    """The first id on the host of a piece that nobody has."""
    if not kind.ranges:
        raise Unsupported(
            f"cannot make a user namespace: /etc/sub{kind.name[0]}id has no range for the user {OWNER}; "
            f"add a line such as {OWNER}:100000:655360"
        )
    taken = [*((each.host_id, each.length) for each in kind.used), *besides]
    for first, free in _without(sorted(kind.ranges), taken):
        if free >= length:
            return first
    raise Exhausted(
        f"cannot make a user namespace: no {length} {kind.name} ids in a row are free in the ranges of user {OWNER}"
    )


def _without(pieces: Iterable[Piece], taken: Iterable[Piece]) -> list[Piece]:
    """What is left of pieces, in their order."""
    left = list(pieces)
    for first, length in taken:
        left = [
            piece
            for start, size in left
            for piece in (
                (start, min(size, first - start)),
                (max(start, first + length), start + size - max(start, first + length)),
            )
            if piece[1] > 0
        ]
    return left


def _check_given(wish: UsernsWish, security: PodSecurity, node: NodeIds) -> None:
    """Whoever chooses ids of the host says as whom it runs; and only root, or who is above the least, may choose."""
    if not (wish.uids or wish.gids):
        return
    user = security.run_as_user
    if user is None:
        raise Invalid(_FIELD, "uidmapping or gidmapping", "run_as_user of the pod too")
    if user and (node.least_uid < 0 or user < node.least_uid):
        limit = "minimum_mappable_uid is not set" if node.least_uid < 0 else f"minimum_mappable_uid is {node.least_uid}"
        raise Invalid(_FIELD, "uidmapping or gidmapping", f"a pod that runs as root: user {user} may not choose, {limit}")
    for name, given, least in (("user", wish.uids, node.least_uid), ("group", wish.gids, node.least_gid)):
        _check_hosts(given, _Kind(name, given, (), least, (), ()))


def _check_hosts(mappings: Iterable[IdMapping], kind: _Kind) -> None:
    least = max(1, kind.least)
    for each in mappings:
        if each.host_id < least:
            what = f"{each.host_id}-{each.host_id + each.length - 1}"
            why = f"minimum_mappable_{kind.name[0]}id" if kind.least > 0 else "the host's root is never mapped"
            raise Invalid(f"{_FIELD} {kind.name} mappings", what, f"host ids from {least} on ({why})")


def _check_least(asked: UserNamespace, node: NodeIds, security: PodSecurity) -> None:
    """What the client maps itself, for a pod that does not run as root."""
    if not security.run_as_user:
        return
    for name, mappings, least in (("uids", asked.uids, node.least_uid), ("gids", asked.gids, node.least_gid)):
        for each in mappings:
            if each.host_id < least:
                raise Invalid(
                    f"userns_options.{name}", each.host_id, f"host ids from {least} on (minimum_mappable_{name[0]}id)"
                )


def _checked(mappings: Sequence[IdMapping], field: str) -> tuple[IdMapping, ...]:
    for side in ("container_id", "host_id"):
        ordered = sorted((getattr(each, side), each.length) for each in mappings)
        for (first, length), (second, _) in pairwise(ordered):
            if first + length > second:
                where = "inside" if side == "container_id" else "on the host"
                raise Invalid(field, second, f"every id {where} once")
    if len(mappings) > MAX_MAPPINGS:
        raise Invalid(field, f"{len(mappings)} mappings", f"at most {MAX_MAPPINGS}")
    return tuple(mappings)


def _made(uids: tuple[IdMapping, ...], gids: tuple[IdMapping, ...]) -> UserNamespace:
    return UserNamespace(mode=NamespaceMode.POD, uids=uids, gids=gids)


def _flat(groups: Iterable[tuple[IdMapping, ...]]) -> tuple[IdMapping, ...]:
    return tuple(each for group in groups for each in group)


def _option(part: str, mode: str) -> tuple[str, str]:
    key, equals, value = part.partition("=")
    if not equals or key not in _KEYS[mode]:
        raise Invalid(_FIELD, part, f"options of {mode}: {', '.join(sorted(_KEYS[mode]))}, each as name=value")
    return key, value


def _size(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or not 0 < int(text) <= LAST_ID:
        raise Invalid(f"{_FIELD} size", text, f"a number from 1 to {LAST_ID}")
    return int(text)


def _boolean(given: Mapping[str, str], key: str) -> bool:
    text = given.get(key, "false")
    if text not in _BOOLEANS:
        raise Invalid(f"{_FIELD} {key}", text, "true or false")
    return _BOOLEANS[text]
