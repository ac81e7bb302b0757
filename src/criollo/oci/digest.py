"""Digests: the name of content by its hash, and the chain ids of layers.

A `Digest` that exists is valid: `sha256:` and 64, or `sha512:` and 128, lower-case hex digits. Paths and URLs are made
of a `Digest`, never of text from elsewhere.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Self

from criollo.errors import Invalid

if TYPE_CHECKING:
    from hashlib import _Hash

_SHAPE: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_EXPECTED: Final = "sha256: and 64, or sha512: and 128, lower-case hex digits"


class Digest(str):
    """An algorithm and its hex digits, `sha256:…`; a string in every other respect."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not _SHAPE.fullmatch(text):
            raise Invalid("digest", text, _EXPECTED)
        return super().__new__(cls, text)

    @classmethod
    def parse(cls, text: str, field: str = "digest") -> Self:
        """The digest that `text` writes.

        Raises:
            Invalid: any other algorithm, length or letter; `field` is the name it gets in the message.
        Source: OCI image-spec, descriptor.md, section Digests.
        """
        if not _SHAPE.fullmatch(text):
            raise Invalid(field, text, _EXPECTED)
        return cls(text)

    @classmethod
    def of(cls, content: bytes) -> Self:
        """The sha256 of `content`."""
        return cls("sha256:" + hashlib.sha256(content).hexdigest())

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.partition(":")[2]

    def hasher(self) -> "_Hash":
        """A fresh hash object of this algorithm."""
        return hashlib.new(self.algorithm)

    def matches(self, content: bytes) -> bool:
        """Whether this is the digest of `content`."""
        hasher = self.hasher()
        hasher.update(content)
        return hasher.hexdigest() == self.hex


def chain_ids(diff_ids: Sequence[Digest]) -> list[Digest]:
    """For each layer, bottom first, the digest that names it together with all layers below.

    Source: OCI image-spec, config.md, section Layer ChainID.
    """
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain
