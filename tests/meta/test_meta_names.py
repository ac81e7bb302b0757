"""A bare name says what it is: a class whose name stands in many rooms says little where it is imported."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/criollo"
MOST = 2

# Rooms and modules that are documents of others in our words: their classes have the documents' names.
DOCUMENTS = (
    "config",
    "cri/pb",
    "cdi/document.py",
    "kpod/manifest.py",
    "network/conflist.py",
    "network/results.py",
    "oci/image_spec.py",
    "oci/runtime_spec.py",
    "specgen/rdt.py",
    "workers/messages.py",
)

# Names that stand more often by now. Whoever renames one takes it out.
TOLERATED: dict[str, int] = {
    "Answer": 3,
    "Connection": 3,
    "Found": 3,
    "Listener": 3,
    "Manner": 3,
    "Origin": 3,
    "Place": 3,
    "Shape": 3,
    "Step": 3,
    "Target": 3,
}


def places() -> dict[str, list[str]]:
    """Where each public class stands, documents left out."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(SOURCE.rglob("*.py")):
        if any(path.is_relative_to(SOURCE / each) for each in DOCUMENTS):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(SOURCE)))
    return dict(found)


def test_a_class_name_stands_at_most_twice() -> None:
    crowded = {name: where for name, where in places().items() if len(where) > TOLERATED.get(name, MOST)}
    assert not crowded, "give them names that say which: ImportWish, ParcelKind"


def test_tolerated_names_still_stand_so_often() -> None:
    found = places()
    assert {name: len(found.get(name, ())) for name in TOLERATED} == TOLERATED


def test_documents_exist() -> None:
    assert not [each for each in DOCUMENTS if not (SOURCE / each).exists()]
