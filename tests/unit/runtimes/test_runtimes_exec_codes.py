"""Which exit code a runtime's words stand for. The words are those of crun 1.8 and runc 1.1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.runtimes.exec import code_of, exit_code, shown

RUNC = "exec failed: unable to start container process: "


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("executable file `nosuch` not found in $PATH: No such file or directory", 127),
        (RUNC + 'exec: "nosuch": executable file not found in $PATH', 127),
        (RUNC + 'exec: "/bin/nosuch": stat /bin/nosuch: no such file or directory', 127),
        (RUNC + "exec /bin/script: no such file or directory", 127),
        ("exec: No such file or directory", 127),
        ("open executable: Operation not permitted", 126),
        ("open executable: Permission denied", 126),
        ("exec: Exec format error", 126),
        (RUNC + 'exec: "/tmp": permission denied', 126),
        (RUNC + 'exec: "/tmp": is a directory', 126),
        (RUNC + "exec /bin/text: exec format error", 126),
        ("the container `c` is not running", 0),
        ("the container `c` is paused", 0),
        ("error opening file `/run/crun/c/status`: No such file or directory", 0),
        ("chdir `/nosuch`: No such file or directory", 0),
        (RUNC + 'chdir to cwd ("/nosuch") set in config.json failed: no such file or directory', 0),
        ("", 0),
    ],
)
def test_words_and_codes(words: str, code: int) -> None:
    assert code_of(words) == code


@given(st.text())
def test_any_words_have_a_code(words: str) -> None:
    assert code_of(words) in (0, 126, 127)


@pytest.mark.parametrize(("status", "code"), [(0, 0), (255, 255), (-9, 137), (-15, 143)])
def test_a_signal_is_128_and_more(status: int, code: int) -> None:
    assert exit_code(status) == code


def test_a_long_command_is_shown_shortened() -> None:
    assert shown(["sh", "-c", "a b"]) == "sh -c 'a b'"
    assert len(shown(["x" * 1000])) == 200
