"""The configuration written as a file: reads back as the same, shows only what was changed."""

import tomllib
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from criollo.config.keys import Kind
from criollo.config.load import load
from criollo.config.places import all_settings, dotted
from criollo.config.reference import reference
from criollo.config.settings import defaults
from criollo.config.template import render, toml_value
from criollo.errors import Invalid


def effective(text: str) -> list[str]:
    """The lines that are no comments, tables or empty."""
    return [line for line in text.split("\n") if line and not line.startswith(("#", "["))]


def test_default_configuration_is_all_comments_and_tables() -> None:
    text = render(defaults(systemd=True))
    assert effective(text) == []
    for table in ("crio", "crio.api", "crio.runtime", "crio.runtime.runtimes.crun", "crio.image", "crio.network", "crio.nri"):
        assert f"\n[{table}]\n" in text


def test_commented_lines_are_valid_when_uncommented() -> None:
    text = render(defaults(systemd=False), commented_defaults=False)
    document = tomllib.loads(text)
    assert document["crio"]["api"]["listen"] == "/run/criollo/criollo.sock"
    assert document["crio"]["runtime"]["runtimes"]["crun"]["container_min_memory"] == "500KiB"


def test_changed_values_are_plain() -> None:
    found = load(None, None, environ={}, overrides={"crio.runtime.pids_limit": 5678}, systemd=False)
    assert effective(render(found.settings)) == ["pids_limit = 5678"]


def _values(kind: Kind) -> st.SearchStrategy[Any]:
    words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
    return {
        Kind.STRING: words,
        Kind.BOOL: st.booleans(),
        Kind.INT: st.integers(-(2**63), 2**63 - 1),
        Kind.STRINGS: st.lists(words, max_size=4),
        Kind.PAIRS: st.dictionaries(words, words, max_size=3),
        Kind.DURATION: st.sampled_from(["5s", "1m30s"]),
        Kind.SIZE: st.sampled_from(["5MiB", ""]),
    }[kind]


_changes = st.lists(
    st.sampled_from(list(all_settings())).flatmap(lambda found: st.tuples(st.just(dotted(found[0])), _values(found[1].kind))),
    max_size=8,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_changes)
def test_what_is_written_reads_back_the_same(tmp_path: Path, changes: list[tuple[str, Any]]) -> None:
    overrides: dict[str, object] = {}
    for key, value in changes:
        try:
            load(None, None, environ={}, overrides={**overrides, key: value}, systemd=False)
        except Invalid:
            continue
        overrides[key] = value
    first = load(None, None, environ={}, overrides=overrides, systemd=False)
    path = tmp_path / "x.conf"
    for commented in (True, False):
        path.write_text(render(first.settings, commented_defaults=commented), encoding="utf-8", newline="")
        assert load(path, None, environ={}, overrides={}, systemd=False).settings == first.settings


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_quoting(text: str) -> None:
    assert tomllib.loads(f"a = {toml_value(text)}") == {"a": text}


@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.text("ab\"'\\\n", max_size=5), max_size=4)
)
def test_any_pairs_survive_writing(pairs: dict[str, str]) -> None:
    assert tomllib.loads(f"a = {toml_value(pairs)}") == {"a": pairs}


def test_handler_names_with_dots_are_quoted(tmp_path: Path) -> None:
    found = load(None, None, environ={}, overrides={"crio.runtime.runtimes": "my.runc:/bin/runc:/run/r"}, systemd=False)
    path = tmp_path / "x.conf"
    path.write_text(render(found.settings))
    again = load(path, None, environ={}, overrides={}, systemd=False)
    assert again.settings.runtime.runtimes["my.runc"].runtime_path == "/bin/runc"


def test_reference_page_is_the_one_in_docs() -> None:
    page = Path(__file__).parents[3] / "docs/configuration.md"
    assert page.read_text() == reference(), "run: make docs"
