"""The small language of --format: fields as they are, what it does not know is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.kpod.template import Template

VALUE: dict[str, Any] = {
    **{"ID": "abc", "N": 3, "Yes": True, "None": None, "List": ["a", "b"], "Sub": {"image": {"image": "x"}}},
    "Evil": "\x1b]0;owned\x07",
}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{{.ID}}:{{ .N }} {{.Yes}}", "abc:3 true"),
        ("{{.Sub.image.image}}", "x"),
        ("{{.List}} {{json .ID}} {{json .Sub}}", '["a", "b"] "abc" {"image": {"image": "x"}}'),
        ('{{join .List ", "}} {{len .List}} {{upper .ID}} {{lower .ID}}', "a, b 2 ABC abc"),
        ("a\\tb\\nc\\\\d", "a\tb\nc\\d"),
        ('{{"{{"}}{{- .ID -}}', "{{abc"),
        ("{{.None}}", "<none>"),
        ("", ""),
        ("plain }} text", "plain }} text"),
    ],
)
def test_what_it_knows(text: str, filled: str) -> None:
    assert Template(text).fill(VALUE) == filled


@pytest.mark.parametrize(
    "text",
    [
        "{{.ID",
        "{{range .List}}",
        "{{.ID | upper}}",
        "{{ID}}",
        "{{}}",
        "{{.a..b}}",
        "{{json}}",
        "{{join .List}}",
        "{{if .ID}}",
        "{{$x}}",
    ],
)
def test_what_it_does_not_know_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="--format"):
        Template(text)


def test_a_field_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(Invalid, match=r"Nope.*ID"):
        Template("{{.Nope}}").fill(VALUE)
    with pytest.raises(Invalid, match="none below it"):
        Template("{{.ID.x}}").fill(VALUE)
    with pytest.raises(Invalid, match="a list"):
        Template('{{join .ID ","}}').fill(VALUE)
    with pytest.raises(Invalid, match="len"):
        Template("{{len .N}}").fill(VALUE)


def test_values_cannot_move_the_cursor() -> None:
    for text in ("{{.Evil}}", "{{json .Evil}}", "{{upper .Evil}}"):
        assert Template(text).fill(VALUE).isprintable()


def test_heads_are_the_names_of_the_fields() -> None:
    template = Template("{{.Repository}}\\t{{.CreatedSince}}\\t{{.ID}}")
    assert template.heads() == "REPOSITORY\tCREATED SINCE\tID"
    assert template.paths == ("Repository", "CreatedSince", "ID")


@given(st.text())
def test_any_text_is_a_template_or_refused(text: str) -> None:
    try:
        template = Template(text)
    except Invalid:
        return
    if "{{" not in text and "\\" not in text:
        assert template.fill(VALUE) == text
