import pytest

from criollo.errors import Invalid
from criollo.kpod.cp import Side, parse_side


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("web:/etc", Side("web", "/etc")),
        ("web:etc", Side("web", "etc")),
        ("pod/web:/a:b", Side("pod/web", "/a:b")),
        ("-", Side("", "-")),
        ("web:-", Side("web", "-")),
        ("./a:b", Side("", "./a:b")),
        ("/a:b", Side("", "/a:b")),
        ("..", Side("", "..")),
        ("plain", Side("", "plain")),
    ],
)
def test_a_side_is_a_container_or_here(text: str, side: Side) -> None:
    assert parse_side(text) == side


@pytest.mark.parametrize("text", ["", ":", ":/x", "web:"])
def test_half_a_side_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="path"):
        parse_side(text)
