"""workers.seal_tree: the rules of the unpacker on paper. That they are the same is shown in tests/node/workers."""

import pytest
from support.tars import END, entry

from criollo.errors import Damaged
from criollo.workers.seal_tree import WHITEOUT, Node, SealTree, children_of
from criollo.workers.tar import DIRECTORY, FILE, Entry, Parser


def tree(*entries: bytes) -> SealTree:
    made = SealTree()
    for event in Parser().feed(b"".join(entries) + END):
        assert isinstance(event, Entry)
        made.add(event)
    return made


def at(made: SealTree, *path: bytes) -> Node:
    node = made.root
    for name in path:
        node = node.children[name]
    return node


def test_missing_parents_are_implied() -> None:
    made = tree(entry(b"a/b/c"))
    assert at(made, b"a", b"b").kind == DIRECTORY
    assert at(made, b"a", b"b").entry is None
    assert at(made, b"a", b"b", b"c").kind == FILE


def test_names_go_through_links_of_the_layer() -> None:
    made = tree(
        entry(b"usr/lib", b"5"), entry(b"lib", b"2", link=b"usr/lib"), entry(b"lib/x"), entry(b"up", b"2", link=b"../lib")
    )
    assert at(made, b"usr", b"lib", b"x").kind == FILE
    assert [path for path, _ in children_of(b"usr", at(made, b"usr"))] == [b"usr/lib"]


def test_the_last_entry_of_a_name_counts_and_takes_what_was_below() -> None:
    made = tree(entry(b"d/a"), entry(b"d"))
    assert at(made, b"d").kind == FILE
    assert not at(made, b"d").children


def test_hard_links_are_one_file() -> None:
    made = tree(entry(b"a", content=b"1"), entry(b"b", b"1", link=b"a"), entry(b"a", content=b"2"))
    assert at(made, b"a") is not at(made, b"b")
    assert at(made, b"b").entry is not None


def test_whiteouts_and_marks() -> None:
    made = tree(entry(b".wh.gone"), entry(b"d/.wh..wh..opq"), entry(b".wh..wh.plnk/x"), entry(b".wh.was/x"), entry(b".wh.was"))
    assert at(made, b"gone").kind == WHITEOUT
    assert at(made, b"d").opaque
    assert set(made.root.children) == {b"gone", b"d", b"was", b".wh.was"}


@pytest.mark.parametrize("name", [b"a/below", b"l/below"])
def test_what_leads_through_a_file_is_no_layer_of_ours(name: bytes) -> None:
    with pytest.raises(Damaged, match="seal is broken"):
        tree(entry(b"a"), entry(b"l", b"2", link=b"a"), entry(name))


def test_links_in_a_circle_end() -> None:
    with pytest.raises(Damaged, match="seal is broken"):
        tree(entry(b"l", b"2", link=b"l"), entry(b"l/x"))
