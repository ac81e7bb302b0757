"""certs.d means here what it means to skopeo, against Debian's docker-registry with TLS."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.as_skopeo import skopeo_gets, we_get
from support.images import file, make_image, push
from support.registry import Registry as Served
from support.registry import make_certificate, run_registry

from criollo.oci.reference import Reference
from criollo.registry.certs import find_directories
from criollo.registry.hosts import Hosts

pytestmark = pytest.mark.node

PLACE = ".config/containers/certs.d"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Served]:
    with run_registry(tls=True) as registry:
        push(registry, "team/app", "v1", make_image([[file("a")]]))
        yield registry


def authority(registry: Served) -> bytes:
    assert registry.ca is not None
    return registry.ca.read_bytes()


def pair(place: Path) -> None:
    made = make_certificate(place.parent, "made")
    shutil.copy(made, place / "me.cert")
    shutil.copy(made.with_suffix(".key"), place / "me.key")


Prepare = Callable[[Path, Served], object]
CASES: dict[str, tuple[Prepare, bool]] = {
    "nothing": (lambda place, registry: None, False),
    "its authority": (lambda place, registry: (place / "ca.crt").write_bytes(authority(registry)), True),
    "under any name": (lambda place, registry: (place / "x.y.crt").write_bytes(authority(registry)), True),
    "with another ending": (lambda place, registry: (place / "ca.pem").write_bytes(authority(registry)), False),
    "and a link to nothing": (
        lambda place, registry: ((place / "ca.crt").write_bytes(authority(registry)), (place / "b.crt").symlink_to("/no/such")),
        True,
    ),
    "a link to nothing alone": (lambda place, registry: (place / "b.crt").symlink_to("/no/such"), False),
    "and a pair that nobody asks for": (
        lambda place, registry: ((place / "ca.crt").write_bytes(authority(registry)), pair(place)),
        True,
    ),
    "and a certificate without its key": (
        lambda place, registry: [(place / name).write_bytes(authority(registry)) for name in ("ca.crt", "me.cert")],
        False,
    ),
    "and a key without its certificate": (
        lambda place, registry: [(place / name).write_bytes(authority(registry)) for name in ("ca.crt", "me.key")],
        False,
    ),
    "of another host": (
        lambda place, registry: (
            (place.parent / "other.example").mkdir(),
            (place.parent / "other.example/ca.crt").write_bytes(authority(registry)),
        ),
        False,
    ),
}


@pytest.mark.parametrize("label", CASES)
def test_the_same_directory_opens_the_same_door(guarded: Served, tmp_path: Path, label: str) -> None:
    prepare, expected = CASES[label]
    place = tmp_path / PLACE / guarded.host
    place.mkdir(parents=True)
    prepare(place, guarded)
    assert (ours(guarded, tmp_path), theirs(guarded, tmp_path)) == (expected, expected)


def theirs(registry: Served, home: Path) -> bool:
    return skopeo_gets(registry.reference("team/app", "v1"), {"PATH": os.environ["PATH"], "HOME": str(home)})


def ours(registry: Served, home: Path) -> bool:
    def wanted() -> tuple[Hosts, Reference]:
        hosts = Hosts(directories=find_directories({"HOME": str(home)}))
        return hosts, Reference.parse(registry.reference("team/app", "v1"))

    return we_get(wanted)
