"""What several modules of the room share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.signing import Gpg


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gpg, str, Path]]:
    """A keyring with one key, and the file that has its public half."""
    home = tmp_path_factory.mktemp("gpg")
    gpg = Gpg(home / "home")
    try:
        key = gpg.make_key("release@example.com")
        (home / "key.gpg").write_bytes(gpg.export(key))
        yield gpg, key, home / "key.gpg"
    finally:
        gpg.close()
