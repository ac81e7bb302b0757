import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid, Unauthenticated
from criollo.registry.auth import Challenge, Credentials, choose, parse_challenges, parse_token


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://auth.example/token", "service": "reg", "scope": "repository:a/b:pull,push"})],
        ),
        ('Basic realm="a, \\"quoted\\" one"', [("basic", {"realm": 'a, "quoted" one'})]),
        ("Basic realm=plain", [("basic", {"realm": "plain"})]),
        ('BEARER Realm = "x" , Service = y', [("bearer", {"realm": "x", "service": "y"})]),
        ('Basic realm="r", Bearer realm="t"', [("basic", {"realm": "r"}), ("bearer", {"realm": "t"})]),
        ("Negotiate", [("negotiate", {})]),
        ("Negotiate abc==, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("Basic", [("basic", {})]),
        ("", []),
        ("=,;", []),
        ('Bearer realm="unclosed', [("bearer", {"realm": ""})]),
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
    ],
)
def test_challenges_are_read(header, expected):
    assert [(challenge.scheme, challenge.parameters) for challenge in parse_challenges([header])] == expected


@given(st.lists(st.text(alphabet='Bearsic="\\, \tx/:', max_size=60) | st.text(max_size=40), max_size=4))
def test_any_header_gives_challenges(values):
    assert len(parse_challenges(values)) <= 16


def test_a_long_hostile_header_is_bounded():
    assert len(parse_challenges(["a " * (1 << 20)] * 100)) <= 16


def test_a_token_server_is_preferred_to_a_password():
    challenges = parse_challenges(['Basic realm="r"', 'Bearer realm="https://a/t"'])
    assert choose(challenges).scheme == "bearer"
    assert choose([Challenge(scheme="bearer"), Challenge(scheme="basic")]).scheme == "basic"
    assert choose([Challenge(scheme="negotiate")]) is None


@pytest.mark.parametrize("answer", [{"token": "abc"}, {"access_token": "abc"}, {"token": "abc", "access_token": "x"}])
def test_tokens_come_under_two_names(answer):
    assert parse_token(json.dumps(answer).encode(), realm_host="a").value == "abc"


@pytest.mark.parametrize(
    ("said", "life_s"), [(None, 60), (-1, 60), (300, 300), (10**12, 3600), ("x", 60), (1e300, 3600), (True, 60), ([], 60)]
)
def test_a_tokens_life_is_kept_in_bounds(said, life_s):
    assert parse_token(json.dumps({"token": "a", "expires_in": said}).encode(), realm_host="a").life_s == life_s


@pytest.mark.parametrize(
    "raw", [b"", b"<html>", b"[]", b"{}", b'{"token":""}', b'{"token":7}', b'{"token":"a\\r\\nX: y"}', b'{"token":"a b"}']
)
def test_an_answer_without_token_is_named(raw):
    with pytest.raises(Unauthenticated, match=r"token server auth\.example"):
        parse_token(raw, realm_host="auth.example")


@given(st.binary(max_size=80))
def test_any_answer_is_a_token_or_refused(raw):
    with contextlib.suppress(Unauthenticated):
        parse_token(raw, realm_host="a")


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def test_base64_credentials_are_read():
    found = Credentials.of_auth(encoded("alice:pass:word"), field="auth")
    assert (found.username, found.password) == ("alice", "pass:word")
    assert Credentials.of_auth(encoded("alice:p\0\0"), field="auth").password == "p"


def test_base64_may_be_in_lines_and_the_user_empty():
    found = Credentials.of_auth(encoded(":p")[:2] + "\r\n" + encoded(":p")[2:], field="auth")
    assert (found.username, found.password, found.has_password) == ("", "p", True)
    assert Credentials.of_auth(encoded("no colon"), field="auth", or_none=True).is_empty
    with pytest.raises(Invalid):
        Credentials.of_auth("!", field="auth", or_none=True)


@pytest.mark.parametrize("auth", ["!", encoded("no colon"), "////", encoded("a:b") + " ", "Q"])
def test_malformed_credentials_are_not_shown(auth):
    with pytest.raises(Invalid) as caught:
        Credentials.of_auth(auth, field="auth")
    assert auth not in str(caught.value).replace("auth: got", "")


def test_secrets_do_not_show():
    secret = Credentials(username="alice", password="hunter2", identity_token="idt", registry_token="regt")
    for text in (repr(secret), str(secret), f"{secret}", repr([secret]), repr({"a": secret})):
        assert not any(word in text for word in ("alice", "hunter2", "idt", "regt"))


def test_a_registry_token_that_would_split_a_header_is_refused():
    with pytest.raises(Invalid) as caught:
        Credentials(registry_token="secret\r\nX: y")
    assert "secret" not in str(caught.value)
