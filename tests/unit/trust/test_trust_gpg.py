"""trust.gpg: what is read from gpg's words; the program itself answers in tests/node/trust."""

import asyncio
import os
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.waiting import cancelled_within

from criollo.aio import threads
from criollo.errors import CriolloError, Denied, HostFailed, TimedOut, ToolFailed
from criollo.trust import gpg
from criollo.trust.gpg import FOREVER, _expiry, _judge, _statuses, remove_leftovers

KEY, SUB = "A" * 40, "B" * 40
GOOD = [
    "PLAINTEXT 62 1795278487 p.json",
    "PLAINTEXT_LENGTH 51",
    "NEWSIG",
    f"KEY_CONSIDERED {KEY} 0",
    "GOODSIG C1CA1FD3B63FDA8C a@b",
    f"VALIDSIG {KEY} 2026-11-21 1795278487 0 4 0 22 8 00 {KEY}",
]


def said(lines):
    return _statuses("".join(f"[GNUPG:] {line}\n" for line in lines).encode())


def verdict(lines):
    return _judge(said(lines), frozenset({KEY}))


def test_one_good_signature_by_a_known_key():
    assert verdict(GOOD) == FOREVER


def test_a_subkey_counts_by_its_primary_key():
    assert verdict([*GOOD[:-1], f"VALIDSIG {SUB} 2026-11-21 1 0 4 0 22 8 00 {KEY}"]) == FOREVER
    with pytest.raises(Denied, match="does not have"):
        verdict([*GOOD[:-1], f"VALIDSIG {SUB} 2026-11-21 1 0 4 0 22 8 00 {SUB}"])


def test_a_signature_that_ends_is_good_until_then():
    assert verdict([*GOOD[:-1], f"VALIDSIG {KEY} 2026-11-21 1 1900000000 4 0 22 8 00 {KEY}"]) == 1900000000


@pytest.mark.parametrize("word", ["BADSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "ERRSIG", "NODATA", "UNEXPECTED", "FAILURE"])
def test_a_bad_word_anywhere_is_enough(word):
    for at in range(len(GOOD) + 1):
        with pytest.raises(Denied):
            verdict([*GOOD[:at], f"{word} x", *GOOD[at:]])


@pytest.mark.parametrize("at", [0, 2, 4, 5])
def test_each_word_comes_exactly_once(at):
    for lines in (GOOD[:at] + GOOD[at + 1 :], [*GOOD, GOOD[at]]):
        with pytest.raises(Denied):
            verdict(lines)


@pytest.mark.parametrize(("clock_s", "said"), [(1763805120, "2025-11-22 09:52 UTC; set the clock"), (1795341121, "be checked")])
def test_a_clock_that_is_behind_is_told(monkeypatch, clock_s, said):
    """gpg 2.2 with --faked-system-time: it takes a key of the future for an unusable one."""
    monkeypatch.setattr(gpg, "time", SimpleNamespace(time=lambda: clock_s, strftime=time.strftime, gmtime=time.gmtime))
    with pytest.raises(Denied, match=said):
        verdict([GOOD[2], "ERRSIG FEBA39561DB569DA 22 8 00 1795341120 6 026498D877E3BC419ED9ACA6FEBA39561DB569DA"])


def test_a_short_validsig_is_no_signature():
    with pytest.raises(Denied):
        verdict([*GOOD[:-1], f"VALIDSIG {KEY}"])


@given(st.lists(st.sampled_from([*GOOD, "BADSIG x", "x", ""]), max_size=8))
def test_nothing_else_passes(lines):
    if (
        sorted(line for line in lines if line in GOOD and line not in (GOOD[1], GOOD[3]))
        == sorted([GOOD[0], GOOD[2], GOOD[4], GOOD[5]])
        and "BADSIG x" not in lines
    ):
        assert verdict(lines) == FOREVER
    else:
        with pytest.raises(Denied):
            verdict(lines)


@given(st.binary(max_size=200))
def test_any_output_is_read(raw):
    _statuses(raw)
    _expiry(raw)


def test_the_first_key_to_expire_ends_a_verdict():
    listing = b"pub:-:255:22:C1:1795278487:4102444800::-:::\nsub:-:255:22:C2:1795278487:4102444700::-:::\npub:-:1:2:C3:1:10:\n"
    assert _expiry(listing) == 4102444700
    assert _expiry(b"pub:-:255:22:C1:1795278487:::-:::\n") == FOREVER


def test_homes_that_a_killed_process_left_are_taken_away(tmp_path):
    (tmp_path / "gpg-0123/private").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["other"]
    remove_leftovers(tmp_path / "absent")


# A gpg that does not do what gpg does. The real one answers in tests/node/trust.


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put a program in gpg's place; returns what a verification by it raised."""

    def run(script, *, cancel=False):
        program = tmp_path / "bin/gpg"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        scratch = tmp_path / "scratch"
        monkeypatch.setattr(gpg.process, "MINIMAL_ENV", {"PATH": f"{program.parent}:/usr/bin:/bin", "MARK": str(tmp_path)})
        with pytest.raises((CriolloError, asyncio.CancelledError)) as told:
            asyncio.run(verify(scratch, tmp_path / "running" if cancel else None))
        assert list(scratch.iterdir()) == []
        return told.value

    async def verify(scratch, running):
        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(once(scratch))
                while running is not None and not running.exists():
                    await asyncio.sleep(0.01)
                if running is not None:
                    task.cancel()
            await task
        except ExceptionGroup as errors:  # not `except*`: Python before 3.11.4 wraps what is raised there again
            raise errors.exceptions[0] from None
        finally:
            threads.close()

    async def once(scratch):
        async with gpg.keyring([b"key"], scratch=scratch) as ring:
            await ring.verify(b"message")

    return run


IMPORTED = f'case "$*" in *--import*) echo "[GNUPG:] IMPORT_OK 1 {KEY}"; exit;; *--list-keys*) exit;; esac'


def test_a_gpg_that_hangs_is_killed(fake, monkeypatch):
    monkeypatch.setattr(gpg, "LIMIT_S", 0.5)
    assert isinstance(fake("sleep 60"), TimedOut)


def test_who_leaves_while_the_home_is_made_leaves_nothing(tmp_path, monkeypatch):
    async def once():
        async with gpg.keyring([b"key"], scratch=tmp_path / "scratch"):
            pass

    try:
        asyncio.run(cancelled_within(monkeypatch, gpg, "_make_home", once()))
    finally:
        threads.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_cancelled_verification_leaves_nothing(fake):
    assert isinstance(fake(f"{IMPORTED}; touch $MARK/running; sleep 60", cancel=True), asyncio.CancelledError)


@pytest.mark.parametrize(
    "script",
    [
        "exit 0",  # imports nothing
        f"{IMPORTED}; exit 0",  # says nothing
        f"{IMPORTED}; exit 2",
        f'{IMPORTED}; echo "[GNUPG:] GOODSIG x"; exit 0',
        f'{IMPORTED}; echo "GOODSIG x" >&2; exit 0',
    ],
)
def test_a_gpg_that_does_not_say_so_does_not_accept(fake, script):
    assert isinstance(fake(script), Denied)


def test_good_words_with_a_bad_status_are_refused(fake):
    said = "\n".join(f'echo "[GNUPG:] {line}"' for line in GOOD)
    assert "status 1" in str(fake(f"{IMPORTED}\n{said}\nexit 1"))


def test_good_words_without_a_text_are_no_signature(fake):
    said = "\n".join(f'echo "[GNUPG:] {line}"' for line in GOOD)
    assert isinstance(fake(f"{IMPORTED}\n{said}\nexit 0"), HostFailed)


def test_a_node_without_gpg_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(gpg.process, "MINIMAL_ENV", {"PATH": str(tmp_path)})

    async def ask():
        async with gpg.keyring([b"key"], scratch=tmp_path / "scratch"):
            pass

    with pytest.raises(ToolFailed, match="is the package gpg installed"):
        asyncio.run(ask())
    threads.close()
