"""A file of documents: YAML without its traps, or JSON. Importing this costs PyYAML: 2 MiB and 30 ms.

Refused: more than a megabyte, aliases (a page of them expands to gigabytes: CVE-2019-11253), tags, keys twice in one
mapping, keys that are no text, nesting beyond any manifest. Dates and 1:30 are text, as they are for Kubernetes.
"""

from collections.abc import Hashable
from typing import Any, Final

import yaml

from criollo.errors import Invalid
from criollo.oci.document import parse

LIMIT_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 64
_DROPPED_TAGS: Final = ("tag:yaml.org,2002:timestamp",)
_KNOWN_TAGS: Final = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map"))


def read_documents(raw: bytes, name: str) -> list[Any]:
    """The documents of a file, in order; `name` stands in errors. Empty ones are left out.

    Raises:
        Invalid: see the module's rules; the message has the line.
    """
    if len(raw) > LIMIT_BYTES:
        raise Invalid(name, f"{len(raw)} bytes", f"at most {LIMIT_BYTES} bytes")
    if raw.lstrip().startswith(b"{"):
        return [parse(raw, what=name, limit_bytes=LIMIT_BYTES)]
    try:
        text = raw.decode("utf-8-sig")
        found = [document for document in yaml.load_all(text, _Loader) if document is not None]
    except _TooDeep:
        raise Invalid(name, "deep nesting", f"at most {_MAX_DEPTH} levels") from None
    except UnicodeDecodeError as error:
        raise Invalid(name, f"byte 0x{raw[error.start]:02x} at offset {error.start}", "YAML or JSON in UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise Invalid(name, f"{line}{error.problem or error.context}", "YAML as Kubernetes reads it") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: numbers of more digits than Python converts
        raise Invalid(name, str(error), "YAML as Kubernetes reads it") from None
    return found


class _TooDeep(Exception):
    pass


class _Loader(yaml.SafeLoader):
    """The safe loader, narrower."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "an alias; write the value out", mark)
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _TooDeep
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and node.tag not in _KNOWN_TAGS:
            raise yaml.composer.ComposerError(None, None, f"the tag {node.tag}", node.start_mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(None, None, "a key that is no text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _narrow(resolvers: dict[str, list[tuple[str, Any]]]) -> dict[str, list[tuple[str, Any]]]:
    """The implicit types without dates; merging keys and `=` become the text they are."""
    dropped = {*_DROPPED_TAGS, "tag:yaml.org,2002:merge", "tag:yaml.org,2002:value"}
    return {first: [(tag, pattern) for tag, pattern in pairs if tag not in dropped] for first, pairs in resolvers.items()}


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    """An integer; base 60 is text."""
    text = str(node.value)
    return text if ":" in text else int(yaml.SafeLoader.construct_yaml_int(loader, node))


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float | str:
    text = str(node.value)
    return text if ":" in text else float(yaml.SafeLoader.construct_yaml_float(loader, node))


_Loader.yaml_implicit_resolvers = _narrow(yaml.SafeLoader.yaml_implicit_resolvers)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
