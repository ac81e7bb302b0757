import contextlib
import socket

import pytest

from criollo.errors import CriolloError
from criollo.kpod.portforward import listen, shown
from criollo.kpod.ports import LOCALHOST, Forward


def test_every_address_has_the_same_port_and_is_closed_at_the_end() -> None:
    with contextlib.ExitStack() as stack:
        found = listen(Forward(LOCALHOST, 0, 80), stack)
        assert len({each.listening.getsockname()[1] for each in found}) == 1
        assert {each.remote for each in found} == {80}
        port = found[0].listening.getsockname()[1]
        assert shown(found[0].listening) == f"127.0.0.1:{port}"
        socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize("address", ["203.0.113.1", "not-an-address", "::ffff:203.0.113.1"])
def test_an_address_that_is_not_ours_is_refused(address: str) -> None:
    with contextlib.ExitStack() as stack, pytest.raises(CriolloError, match="cannot listen at"):
        listen(Forward((address,), 0, 80), stack)


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, contextlib.ExitStack() as stack:
        port = taken.getsockname()[1]
        with pytest.raises(CriolloError, match="Address already in use"):
            listen(Forward(LOCALHOST, port, 80), stack)
