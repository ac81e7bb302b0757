"""The cause of a failed pull, in the words of registries and of CRI-O."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError, ReadTimeoutError

from criollo import errors
from criollo.registry.blobs import Spoiled, WrongBlob
from criollo.registry.connections import NoTls, Retryable, Unreachable
from criollo.registry.turnstile import Limited
from criollo.telemetry.pull_failures import UNKNOWN, cause_of, ends_the_search
from criollo.telemetry.trail import Trail


def label(error: BaseException) -> str:
    work = Trail("pull", ("host/name:tag",))
    work.fail(error)
    return cause_of(work.error_kinds, work.error)


def from_cause(error: Exception, *causes: Exception) -> Exception:
    """The error as `raise … from …` makes it."""
    below = error
    for cause in causes:
        below.__cause__ = cause
        below = cause
    return error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (errors.NotFound("image", "host/name:tag"), "NOT_FOUND"),
        (errors.Unauthenticated("x"), "UNAUTHORIZED"),
        (errors.Forbidden("x"), "DENIED"),
        (errors.Denied("x"), "DENIED"),
        (errors.Exhausted("x"), "EXHAUSTED"),
        (errors.Unavailable("x"), "UNAVAILABLE"),
        (errors.TimedOut("x"), "CONNECTION_TIMEOUT"),
        (errors.Damaged("x"), "DIGEST_INVALID"),
        (errors.Unsupported("x"), "UNSUPPORTED"),
        (errors.HostFailed("x"), "HOST_FAILED"),
        (errors.Invalid("manifest.layers", 1, "a list"), "MANIFEST_INVALID"),
        (WrongBlob("x"), "DIGEST_INVALID"),
        (Spoiled("x"), "DIGEST_INVALID"),
        (Retryable("x"), "UNAVAILABLE"),
        (Unreachable("x"), "UNAVAILABLE"),
        (NoTls("x"), "NO_TLS"),
        (Limited("x"), "TOOMANYREQUESTS"),
        (TimeoutError("x"), "CONNECTION_TIMEOUT"),
        (ValueError("x"), UNKNOWN),
        (Exception(), UNKNOWN),
    ],
)
def test_each_class_has_its_word(error: Exception, cause: str) -> None:
    assert label(error) == cause


@pytest.mark.parametrize(
    ("causes", "cause"),
    [
        ((NewConnectionError(None, "x"), ConnectionRefusedError(111, "Connection refused")), "CONNECTION_REFUSED"),  # type: ignore[arg-type]
        ((NewConnectionError(None, "x"), OSError(101, "Network is unreachable")), "UNAVAILABLE"),  # type: ignore[arg-type]
        ((ConnectTimeoutError("x"),), "CONNECTION_TIMEOUT"),
        ((ReadTimeoutError(None, "/", "x"),), "CONNECTION_TIMEOUT"),  # type: ignore[arg-type]
        ((NameResolutionError("host", None, OSError()),), "UNAVAILABLE"),  # type: ignore[arg-type]
        ((ConnectionResetError(104, "reset"),), "UNAVAILABLE"),
    ],
)
def test_what_happened_on_the_way_is_found_below_our_error(causes: tuple[Exception, ...], cause: str) -> None:
    assert label(from_cause(Unreachable("cannot reach registry"), *causes)) == cause


def test_damage_that_is_told_again_keeps_its_word() -> None:
    assert label(from_cause(errors.Damaged("cannot use layer"), Spoiled("x"))) == "DIGEST_INVALID"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("image host/name:tag not found: so says registry host: MANIFEST_UNKNOWN: manifest unknown", "MANIFEST_UNKNOWN"),
        ("image host/name:tag not found: so says registry host: NAME_UNKNOWN", "NAME_UNKNOWN"),
        ("registry host forbids host/name: DENIED: no; ask its owner for access", "DENIED"),
        ("registry host answers 503: SOMETHING_ELSE: bad; try again later", "NOT_FOUND"),
        ("image host/name:TAG_INVALID not found", "NOT_FOUND"),
    ],
)
def test_registrys_own_word_comes_first(text: str, cause: str) -> None:
    assert cause_of(("NotFound", "CriolloError"), text) == cause


def test_full_node_ends_the_search_and_a_registry_does_not() -> None:
    assert ends_the_search(("Exhausted", "CriolloError"))
    assert ends_the_search(("ReaderGone", "HostFailed", "CriolloError"))
    assert not ends_the_search(("NotFound", "CriolloError"))


@given(st.lists(st.text(max_size=12)), st.text())
def test_labels_are_of_a_fixed_set(kinds: list[str], text: str) -> None:
    assert len(cause_of(kinds, text)) <= 24
    assert cause_of(kinds, text).replace("_", "").isupper()
