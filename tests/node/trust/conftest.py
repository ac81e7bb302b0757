"""Keys for the tests of trust, made once."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.registry import run_registry
from support.signing import Gpg
from support.trusting import Place


@dataclass(frozen=True)
class Keys:
    """GPG keys by what they are; `ring` signs with them."""

    ring: Gpg
    good: str
    other: str
    expired: str
    revoked: str
    old: str

    def sign(self, text: bytes, *fingerprints: str, **more: object) -> bytes:
        return self.ring.sign(text, *fingerprints, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    ring = Gpg(Path(tmp_path_factory.mktemp("gpg")) / "home")
    try:
        good, other, revoked = (ring.make_key(f"{name}@example.com") for name in ("good", "other", "revoked"))
        expired = ring.make_key("expired@example.com", at="20200101T000000", expires="20200201T000000")
        old = ring.make_key("old@example.com", at="20200101T000000")
        yield Keys(ring, good, other, expired, revoked, old)
    finally:
        ring.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with run_registry() as registry:
        yield Place(registry, Path(tmp_path_factory.mktemp("place")))
