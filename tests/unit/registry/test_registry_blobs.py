"""registry.blobs: how much is asked for at once; what else a transfer does is in the tests of the client."""

import os

import pytest
from urllib3.response import HTTPResponse

from criollo.oci.digest import Digest
from criollo.oci.image_spec import OCI_LAYER, Descriptor
from criollo.registry.blobs import Download
from criollo.registry.connections import Limits
from criollo.registry.lifeline import Lifeline

CONTENT = os.urandom(4 << 20)


class Answer(HTTPResponse):
    """A body of which at most `at_once` bytes are there at any time."""

    def __init__(self, at_once: int) -> None:
        super().__init__(b"", {}, 200, preload_content=False)
        self.at_once, self.at, self.asked = at_once, 0, list[int]()

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        assert amt is not None
        self.asked.append(amt)
        piece = CONTENT[self.at : self.at + min(amt, self.at_once)]
        self.at += len(piece)
        return piece


def transferred(answer: Answer) -> bytes:
    blob = Descriptor(media_type=OCI_LAYER, digest=Digest.of(CONTENT), size=len(CONTENT))
    sink = os.memfd_create("blob", os.MFD_CLOEXEC)
    try:
        with Lifeline() as lifeline:
            Download(blob, sink, lifeline=lifeline, limits=Limits(), progress=None).take(answer, "registry.test")
        return os.pread(sink, len(CONTENT) + 1, 0)
    finally:
        os.close(sink)


@pytest.mark.parametrize(
    ("at_once", "most"),
    [
        pytest.param(1 << 30, 512 << 10, id="all is there: large pieces, which cost least"),
        pytest.param(16 << 10, 32 << 10, id="records of TLS: no large buffers for small pieces"),
        pytest.param(100_000, 200_000, id="in between"),
        pytest.param(1000, 32 << 10, id="a trickle"),
    ],
)
def test_as_much_is_asked_for_as_comes(at_once: int, most: int) -> None:
    answer = Answer(at_once)
    assert transferred(answer) == CONTENT
    assert max(answer.asked) == most
    assert len(answer.asked) <= len(CONTENT) // min(at_once, most) + 8
