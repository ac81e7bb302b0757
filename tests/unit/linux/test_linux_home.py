"""linux.home: where a user's own files are."""

import os
import pwd

import pytest

from criollo.linux.home import with_home


def test_home_of_the_environment_counts() -> None:
    environ = {"HOME": "/h", "X": "y"}
    assert with_home(environ) is environ


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}])
def test_without_home_the_user_database_has_it(environ: dict[str, str]) -> None:
    assert with_home(environ)["HOME"] == pwd.getpwuid(os.getuid()).pw_dir


def test_a_user_without_an_entry_has_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999_999)
    assert dict(with_home({"X": "y"})) == {"X": "y"}
