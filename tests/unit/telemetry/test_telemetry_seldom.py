"""Lines that would flood the log."""

from criollo.telemetry.seldom import Seldom


def test_a_line_is_due_at_once_and_then_once_a_while_for_all_the_times_since() -> None:
    moments = iter([100, 101, 159, 160, 161, 300])
    seldom = Seldom(60, clock=lambda: next(moments))
    assert [seldom.due() for _ in range(6)] == [1, 0, 0, 3, 0, 2]
