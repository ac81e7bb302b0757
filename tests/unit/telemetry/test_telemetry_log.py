import io
import json
import logging
from collections.abc import Iterator

import pytest

from criollo.telemetry import log as logs


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Other tests see the logging they had."""
    root, ours = logging.getLogger(), logging.getLogger("criollo")
    before = (list(root.handlers), root.level, ours.level)
    yield
    root.handlers[:], level, ours_level = before
    root.setLevel(level)
    ours.setLevel(ours_level)


def written(level: str = "info", form: str = "text") -> tuple[logs.Logger, io.StringIO]:
    out = io.StringIO()
    logs.set_up(level, form=form, stream=out)
    return logs.get_logger("criollo.test"), out


def test_a_line_has_time_level_message_and_fields() -> None:
    log, out = written()
    log.info("container exited", container="abc", code=137)
    stamp, rest = out.getvalue().split(" ", 1)
    assert stamp.endswith("Z")
    assert rest == 'info "container exited" container=abc code=137\n'


def test_lines_below_the_level_are_not_written() -> None:
    log, out = written("warning")
    log.info("unseen")
    log.debug("unseen")
    assert out.getvalue() == ""
    assert not log.is_debug


def test_the_request_at_hand_is_in_every_line() -> None:
    log, out = written()
    token = logs.context.set({"id": "r1"})
    try:
        log.warning("seen")
    finally:
        logs.context.reset(token)
    assert "id=r1" in out.getvalue()


def test_control_characters_and_terminal_escapes_are_shown_not_sent() -> None:
    log, out = written()
    log.info("name", value="a\x1b]0;title\nnext\u202e")
    assert "\x1b" not in out.getvalue()
    assert out.getvalue().count("\n") == 1
    assert "\u202e" not in out.getvalue()


def test_json_lines_are_documents() -> None:
    log, out = written(form="json")
    log.error("broken", object="x y", error=ValueError("why"))
    document = json.loads(out.getvalue())
    assert (document["level"], document["msg"], document["object"], document["error"]) == ("error", "broken", "x y", "why")


def test_a_traceback_follows_its_line() -> None:
    log, out = written()
    try:
        raise ValueError("inside")
    except ValueError:
        log.exception("bug")
    assert "ValueError: inside" in out.getvalue()


def test_filter_lets_lines_through_in_whose_message_or_fields_it_matches() -> None:
    log, out = written()
    logs.set_filter("^serving|code=1[0-9]{2}")
    log.info("container exited", container="abc", code=137)
    log.info("container exited", container="abc", code=0)
    log.info("serving")
    log.error("not serving")
    logs.set_filter("")
    log.info("all again")
    assert [line.split(" ", 2)[2] for line in out.getvalue().splitlines()] == [
        '"container exited" container=abc code=137',
        "serving",
        '"all again"',
    ]


def test_json_lines_show_bidirectional_characters_as_escapes_and_keep_their_own_words() -> None:
    log, out = written(form="json")
    log.info("name", value="a\u202eb", level="mine")
    assert "\u202e" not in out.getvalue()
    told = json.loads(out.getvalue())
    assert (told["value"], told["level"]) == ("a\u202eb", "info")
