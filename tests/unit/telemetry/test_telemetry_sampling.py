"""A profile by samples."""

import threading
from collections.abc import Iterator

import pytest

from criollo.telemetry.sampling import Sampler


@pytest.fixture
def busy() -> Iterator[threading.Event]:
    """A thread in `spin`, and one that waits."""
    stop, turning = threading.Event(), threading.Event()

    def spin() -> None:
        turning.set()
        while not stop.is_set():
            sum(range(100))

    threads = [threading.Thread(target=spin), threading.Thread(target=stop.wait)]
    for thread in threads:
        thread.start()
    assert turning.wait(60)
    yield stop
    stop.set()
    for thread in threads:
        thread.join()


def test_stacks_at_work_are_counted_in_folded_form_and_waiting_ones_left_out(busy: threading.Event) -> None:
    sampler = Sampler()
    for _ in range(50):
        sampler.sample()
    head, *lines = sampler.text().splitlines()
    assert head.startswith("# profile by samples: 50 in ")
    spinning = [line for line in lines if ".spin" in line]
    assert sum(int(line.rpartition(" ")[2]) for line in spinning) == 50
    assert all("threading.Thread._bootstrap;" in line for line in spinning)
    assert not any(line.rpartition(" ")[0].endswith("threading.Event.wait") for line in lines if "spin" not in line)


def test_run_ends_when_it_is_stopped(busy: threading.Event) -> None:
    sampler = Sampler(every_s=0.001)
    thread = threading.Thread(target=sampler.run)
    thread.start()
    while "at work" in sampler.text() and " 0 stacks" in sampler.text():
        busy.wait(0.001)
    sampler.stop()
    thread.join(60)
    assert not thread.is_alive()
