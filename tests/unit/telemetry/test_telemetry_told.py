"""Trails as they are kept and shown: bounded, printable, without secrets."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from criollo.telemetry.told import WorkTold, bounded, tell
from criollo.telemetry.trail import Trail, program, waiting


@given(st.text(max_size=10_000), st.integers(1, 3000))
def test_text_is_bounded_and_printable(text: str, limit: int) -> None:
    kept = bounded(text, limit)
    assert len(kept) <= limit
    assert kept.isprintable()


def test_what_goes_on_has_no_duration() -> None:
    with Trail("create container", "x") as work:
        work.stage("container volumes")
        with waiting("look at volume source /mnt"):
            told = tell(work)
    assert told.seconds is None
    assert [(step.kind, step.seconds) for step in told.steps] == [("stage", None), ("wait", None)]
    assert tell(work).seconds is not None


def test_program_that_went_well_is_told_briefly_and_one_that_failed_in_full() -> None:
    argv = ["/usr/bin/crun", "--root=/run/crun", "delete", "--token=abc", "id"]
    with Trail("remove container", "x") as work:
        program(argv, 7).end(0, "")
        program(argv, 8).end(1, "it is busy")
    well, failed = tell(work).steps
    assert well.argv == ("/usr/bin/crun", "--root=/run/crun")
    assert failed.argv == ("/usr/bin/crun", "--root=/run/crun", "delete", "--token=***", "id")
    assert (failed.status, failed.said) == (1, "it is busy")


def test_json_of_it_comes_back() -> None:
    with Trail("pull", ("a", "b")) as work:
        work.stage("manifest")
        work.fail(ValueError("cannot\x1b pull"))
    told = tell(work)
    assert msgspec.json.decode(msgspec.json.encode(told), type=WorkTold) == told
    assert "\x1b" not in told.error


def test_a_secret_longer_than_what_is_kept_does_not_show_its_end() -> None:
    assert bounded("pulling with Bearer " + "a1b2" * 500, 160) == "pulling with Bearer ***"
