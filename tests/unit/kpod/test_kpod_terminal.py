import io

from hypothesis import given
from hypothesis import strategies as st

from criollo.kpod.pull import choose
from criollo.kpod.terminal import Lines, Screen, draw
from criollo.model.transfer import LayerState, TransferState

DIGEST = "sha256:" + "1" * 64


def layer(**fields: object) -> LayerState:
    return LayerState(**{"digest": DIGEST, "size": 1000, "done": 500, "stage": "pulling", **fields})  # type: ignore[arg-type]


def test_a_bar_is_as_full_as_the_layer() -> None:
    [line] = draw([layer()], columns=80, rows=5)
    assert line.startswith("111111111111  [")
    assert line.count("#") in (line.count(".") - 1, line.count("."), line.count(".") + 1)


def test_a_layer_that_is_here_is_full_whatever_was_counted() -> None:
    [line] = draw([layer(done=0, stage="here")], columns=80, rows=5)
    assert "." not in line.partition("[")[2].partition("]")[0]
    assert line.endswith("done")


def test_a_narrow_terminal_has_no_bar() -> None:
    [line] = draw([layer()], columns=30, rows=5)
    assert "[" not in line


def test_finished_layers_give_way_first() -> None:
    layers = [layer(digest=f"sha256:{n}" + "0" * 63, stage="here" if n < 5 else "pulling") for n in range(8)]
    lines = draw(layers, columns=80, rows=4)
    assert [line[:1] for line in lines] == ["5", "6", "7", "a"]
    assert lines[-1] == "and 5 more"


@given(
    st.lists(st.builds(LayerState, digest=st.text(), size=st.integers(), done=st.integers(), stage=st.text()), max_size=30),
    st.integers(1, 200),
    st.integers(1, 40),
)
def test_no_picture_is_larger_than_the_terminal(layers: list[LayerState], columns: int, rows: int) -> None:
    lines = draw(layers, columns=columns, rows=rows)
    assert len(lines) <= rows
    assert all(len(line) <= columns and line.isprintable() for line in lines)


def test_a_screen_draws_over_what_it_drew() -> None:
    stream = io.StringIO()
    screen = Screen(stream, lambda: (80, 24))
    screen.put(["a", "b"])
    screen.put(["c"])
    assert stream.getvalue() == "\r\x1b[2Ka\n\r\x1b[2Kb\n\x1b[J\x1b[2A\r\x1b[2Kc\n\x1b[J"


def test_lines_tell_of_each_layer_once() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.show([layer()])
    lines.show([layer(stage="here")])
    lines.show([layer(stage="here")])
    assert stream.getvalue() == "layer 111111111111 0.98 KiB\n"


def test_the_pull_of_an_image_is_found_by_any_of_its_names() -> None:
    pulls = [TransferState(reference="docker.io/library/busybox:latest"), TransferState(reference="quay.io/x/y:1")]
    for name in ("busybox", "busybox:latest", "docker.io/busybox"):
        assert choose(pulls, name) == pulls[0]
    assert choose(pulls, "quay.io/x/y:1") == pulls[1]
    assert choose(pulls, "other") is None
    assert choose(pulls, "NO image") is None


def test_a_short_name_is_found_at_another_registry() -> None:
    pulls = [TransferState(reference="quay.io/x/busybox:latest")]
    assert choose(pulls, "busybox") == pulls[0]
    assert choose([*pulls, TransferState(reference="a.io/busybox:latest")], "busybox") is None
