import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Unavailable
from criollo.registry.proxies import Proxies, userinfo, without_userinfo

PROXY = "http://user:p%40ss@proxy.example:3128"


def test_each_scheme_has_its_proxy():
    proxies = Proxies({"HTTPS_PROXY": PROXY, "http_proxy": "other.example:80"})
    assert proxies.choose("https", "r.example", 443) == PROXY
    assert proxies.choose("http", "r.example", 80) == "http://other.example:80"
    assert Proxies({}).choose("https", "r.example", 443) == ""


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "direct"),
    [
        ("*", "r.example", 443, True),
        ("r.example", "r.example", 443, True),
        ("example", "r.example", 443, True),
        (".example", "r.example", 443, True),
        (".r.example", "r.example", 443, False),
        ("*.example", "r.example", 443, True),
        ("xample", "r.example", 443, False),
        ("r.example:5000", "r.example", 443, False),
        ("r.example:5000", "r.example", 5000, True),
        ("a, R.Example ,b", "r.example", 443, True),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("fd00::/8", "fd00::1", 443, True),
        ("[fd00::1]:5000", "fd00::1", 5000, True),
        ("fd00::1", "fd00::1", 443, True),
        ("", "localhost", 443, True),
        ("", "127.0.0.1", 443, True),
        ("", "::1", 443, True),
    ],
)
def test_exceptions_go_direct(no_proxy, host, port, direct):
    assert (Proxies({"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}).choose("https", host, port) == "") is direct


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("socks5://secret@p:1", "socks5:// is not supported"),
        ("ftp://secret@p", "ftp:// is not supported"),
        ("http://", "no URL"),
        ("http://secret@p:x", "no URL"),
        ("http://secret@p:99999", "no URL"),
    ],
)
def test_another_kind_of_proxy_fails_who_needs_it_without_its_secret(url, told):
    proxies = Proxies({"HTTPS_PROXY": url, "NO_PROXY": "near.example"})
    with pytest.raises(Unavailable, match="HTTPS_PROXY") as caught:
        proxies.choose("https", "r.example", 443)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)
    for scheme, host in (("https", "near.example"), ("https", "localhost"), ("http", "r.example")):
        assert proxies.choose(scheme, host, 443) == ""


def test_user_and_password_are_taken_out():
    assert userinfo(PROXY) == "user:p@ss"
    assert without_userinfo(PROXY) == "http://proxy.example:3128"
    assert without_userinfo("https://u:p@h/x?token=secret") == "https://h/x"


@given(st.text(max_size=40), st.text(max_size=20), st.integers(0, 65535))
def test_any_exception_list_is_read(no_proxy, host, port):
    assert Proxies({"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}).choose("https", host, port) in ("", PROXY)
