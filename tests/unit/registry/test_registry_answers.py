"""What headers and bodies of a failing answer mean."""

import datetime
from email.utils import format_datetime

from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPHeaderDict
from urllib3.response import HTTPResponse

from criollo.registry.answers import error_text, wait_s


def saying(text):
    return wait_s(HTTPResponse(headers=HTTPHeaderDict({"Retry-After": text}), status=429))


@given(st.text(max_size=80))
def test_any_retry_after_is_a_wait_or_none(text):
    assert 0 <= saying(text) <= 1e12


@given(st.integers(0, 999_999_999))
def test_seconds_are_taken_as_they_are(seconds):
    assert saying(str(seconds)) == seconds


@given(st.datetimes(datetime.datetime(2100, 1, 1), datetime.datetime(9000, 1, 1)))
def test_a_date_is_the_time_until_then(when):
    when = when.replace(microsecond=0, tzinfo=datetime.UTC)
    now = datetime.datetime.now(datetime.UTC)
    assert abs(saying(format_datetime(when, usegmt=True)) - (when - now).total_seconds()) < 60


@given(st.binary(max_size=200) | st.builds(lambda code: b'{"errors":[{"code":"' + code + b'"}]}', st.binary(max_size=20)))
def test_any_error_body_is_one_printable_line_or_nothing(body):
    assert error_text(body).isprintable()
