import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Unavailable
from criollo.registry.redirects import next_hop, origin

HERE = "https://r.example/v2/a/blobs/x"


def hop(url, location, plain=()):
    return next_hop(url, location, may_be_plain=lambda there: there.netloc in plain)


@pytest.mark.parametrize(
    ("url", "location", "expected"),
    [
        (HERE, "/v2/b", "https://r.example/v2/b"),
        (HERE, "y?z=1", "https://r.example/v2/a/blobs/y?z=1"),
        (HERE, "https://cdn.example/x?sig=s", "https://cdn.example/x?sig=s"),
        (HERE, "//cdn.example/x", "https://cdn.example/x"),
        ("http://r.example/x", "https://cdn.example/x", "https://cdn.example/x"),
        ("http://r.example/x", "http://r.example:5000/x", "http://r.example:5000/x"),
        ("http://127.0.0.1:5000/x", "http://localhost:1/x", None),
        ("https://127.0.0.1:5000/x", "https://localhost:1/x", "https://localhost:1/x"),
    ],
)
def test_good_redirects_are_followed(url, location, expected):
    if expected is None:
        with pytest.raises(Unavailable):
            hop(url, location)
    else:
        assert hop(url, location) == expected


@pytest.mark.parametrize(
    "location",
    [
        "http://r.example/x",
        "http://cdn.example/x",
        "file:///etc/shadow",
        "unix:///run/x.sock",
        "ftp://a/b",
        "gopher://a",
        "https://u:secret@evil.example/x",
        "https://a:99999/x",
        "https://[::1",
        "https://169.254.169.254/latest/meta-data",
        "https://[fe80::1]/x",
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://0.0.0.0/x",
        "https://a/b\r\nX: y",
        "https://a/" + "b" * 10_000,
    ],
)
def test_bad_redirects_are_refused(location):
    with pytest.raises(Unavailable, match=r"r\.example.*not followed") as caught:
        hop(HERE, location)
    assert "secret" not in str(caught.value)


def test_a_plain_host_must_be_marked():
    assert hop("http://r.example/x", "http://cdn.example:81/x", plain=["cdn.example:81"])
    with pytest.raises(Unavailable, match="does not mark as insecure"):
        hop("http://r.example/x", "http://cdn.example/x", plain=["cdn.example:81"])


def test_origins_ignore_case_and_know_the_usual_ports():
    assert origin("https://R.Example/x") == origin("https://r.example:443/y")
    assert origin("https://r.example") != origin("http://r.example")
    assert origin("https://r.example/").netloc == "r.example"
    assert origin("http://[::1]:5000/").netloc == "[::1]:5000"


@given(st.text(max_size=60))
def test_any_location_is_followed_to_an_http_host_or_refused(location):
    try:
        target = hop(HERE, location)
    except Unavailable:
        return
    assert origin(target).scheme == "https"
