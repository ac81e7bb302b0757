"""What a layer must look like, from the entries of its archive: the same rules as `workers.extract`, on paper.

Names go through links as they do on the disk; the last entry of a name counts; whiteouts and opaque marks are what overlay
calls them. A directory that no entry describes is `implied`: it takes its values from the layers below.
"""

from collections.abc import Iterator
from typing import Final

from criollo.errors import Damaged
from criollo.workers.extract import clean_name
from criollo.workers.tar import DIRECTORY, LINK, SYMLINK, Entry, show_name

WHITEOUT: Final = b"w"

_MARK: Final = b".wh."
_META: Final = b".wh..wh."
_OPAQUE_MARK: Final = b".wh..wh..opq"
_MAX_LINKS: Final = 40


class Node:
    """One file, directory, link or device; `entry` is None for what no entry describes.

    `at` is the first path that leads to a file with several names. `alias` says that a directory was described by more than
    one name, or through a link: then it is not known which of its last strokes came last, or at all.
    """

    __slots__ = ("alias", "at", "children", "entry", "identity", "kind", "opaque", "written")

    def __init__(self, kind: bytes, entry: Entry | None = None, *, opaque: bool = False, written: bytes = b"") -> None:
        self.kind, self.entry, self.opaque, self.written = kind, entry, opaque, written
        self.children: dict[bytes, Node] = {}
        self.alias = False
        self.at: bytes | None = None
        self.identity: tuple[int, int] | None = None


class SealTree:
    """The tree of the entries that were added."""

    def __init__(self) -> None:
        self.root = Node(DIRECTORY)
        self._went_through_link = False  # on the last way to a directory

    def add(self, entry: Entry) -> Node | None:
        """The node that an entry makes; None for one that makes none: marks, and links to what is there.

        Raises:
            Damaged: no layer of ours has such an entry.
        """
        name = clean_name(entry.name)
        parent_name, _, base = name.rpartition(b"/")
        if base == _OPAQUE_MARK:
            self._directory(parent_name).opaque = True
            return None
        if name.startswith(_META) or base.startswith(_META):
            return None
        if base.startswith(_MARK):
            self._white_out(self._directory(parent_name), base[len(_MARK) :])
            return None
        if not name:
            self.root.entry = entry
            return None
        parent = self._directory(parent_name)
        if entry.kind == LINK:
            target = self._target(clean_name(entry.link))
            if target.kind == DIRECTORY and parent.children.get(base) is not target:
                raise Damaged(f"the layer's seal is broken: it links to {show_name(entry.link)}, which is a directory")
            parent.children[base] = target
            return None
        if entry.kind == DIRECTORY:
            return self._add_directory(parent, base, entry, name)
        node = Node(entry.kind, entry)
        parent.children[base] = node
        return node

    def _add_directory(self, parent: Node, base: bytes, entry: Entry, written: bytes) -> Node:
        known = parent.children.get(base)
        if known is None or known.kind != DIRECTORY:
            known = parent.children[base] = Node(DIRECTORY, opaque=known is not None, written=written)
        renamed = known.entry is not None and known.written != written
        known.alias = known.alias or renamed or self._went_through_link
        known.entry, known.written = entry, written
        return known

    def _white_out(self, parent: Node, hidden: bytes) -> None:
        known = parent.children.get(hidden)
        if known is None:
            parent.children[hidden] = Node(WHITEOUT)
        elif known.kind == DIRECTORY:
            known.opaque = True

    def _target(self, name: bytes) -> Node:
        parent, _, base = name.rpartition(b"/")
        found = self._directory(parent).children.get(base)
        if found is None:
            raise Damaged(f"the layer's seal is broken: it links to {show_name(name)}, which it does not have")
        return found

    def _directory(self, name: bytes) -> Node:
        """The directory of this name, through links; made where it is missing."""
        way = [self.root]
        parts = name.split(b"/")[::-1] if name else []
        links = 0
        self._went_through_link = False
        while parts:
            part = parts.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if len(way) > 1:
                    way.pop()
                continue
            found = way[-1].children.get(part)
            if found is None or found.kind == WHITEOUT:
                found = way[-1].children[part] = Node(DIRECTORY, opaque=found is not None)
            if found.kind == SYMLINK and found.entry is not None and links < _MAX_LINKS:
                links += 1
                self._went_through_link = True
                if found.entry.link.startswith(b"/"):
                    way = [self.root]
                parts += found.entry.link.split(b"/")[::-1]
            elif found.kind != DIRECTORY:
                raise Damaged(f"the layer's seal is broken: {show_name(name)} leads through what is no directory")
            else:
                way.append(found)
        return way[-1]


def children_of(path: bytes, node: Node) -> Iterator[tuple[bytes, Node]]:
    """The paths right below a directory, with their nodes."""
    for name, child in node.children.items():
        yield (path + b"/" + name if path else name), child
