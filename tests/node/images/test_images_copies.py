"""`kpod copy` with Debian's registry: every kind of place, there and back; skopeo is the second opinion. No daemon runs."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.bad_registry import hang_after, run_bad_registry
from support.daemon import wait_for
from support.images import busybox_image, file, make_image, make_index, push
from support.registry import Registry, run_registry
from support.signing import SIGSTORE as SIGSTORE_KIND
from support.signing import Gpg, SigstoreKey, attach, payload, put_signature

pytestmark = pytest.mark.node

KPOD = Path(sys.executable).parent / "kpod"
ACCEPT = [{"type": "insecureAcceptAnything"}]
INDEX = make_index(
    [busybox_image(), make_image([[file("b")]], platform={"os": "linux", "architecture": "s390x"}, compression="zstd")]
)


class Copier:
    """kpod with files of its own; `source` is an index at a registry."""

    def __init__(self, place: Path, source: Registry, target: Registry) -> None:
        self.place, self.target = place, target
        self.source = source.reference("team/app", "v1")
        self.lookaside, self.staging = place / "lookaside", place / "staging"
        (place / "registries.conf").write_text(source.registries_conf() + insecure(target.host))
        (place / "home/.config/containers/registries.d").mkdir(parents=True)
        self.write_places({source.host: self.lookaside, target.host: self.staging})
        self.write_policy({"default": ACCEPT})
        (place / "crio.conf").write_text(
            f'[crio]\nroot = "{place}/root"\nrunroot = "{place}/run"\n[crio.image]\nsignature_policy = "{place}/policy.json"\n'
        )

    def write_policy(self, policy: dict[str, Any]) -> None:
        (self.place / "policy.json").write_text(json.dumps(policy))

    def write_places(self, lookasides: dict[str, Path]) -> None:
        said = {host: {"lookaside": f"file://{path}", "use-sigstore-attachments": True} for host, path in lookasides.items()}
        (self.place / "home/.config/containers/registries.d/a.yaml").write_text(json.dumps({"docker": said}))

    @property
    def environment(self) -> dict[str, str]:
        home, conf = str(self.place / "home"), str(self.place / "registries.conf")
        return {**os.environ, "HOME": home, "CONTAINERS_REGISTRIES_CONF": conf, "TMPDIR": str(self.place)}

    def argv(self, *words: object) -> list[str]:
        return [str(KPOD), "-c", str(self.place / "crio.conf"), "-d", "", "copy", *map(str, words)]

    def __call__(self, *words: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(self.argv(*words), env=self.environment, capture_output=True, text=True, timeout=120, check=False)

    def copied(self, *words: object) -> str:
        done = self(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def left(self) -> list[str]:
        """What nobody gave a name to."""
        return [path.name for path in self.place.iterdir() if path.name.startswith((".", "kpod-"))]


def insecure(host: str) -> str:
    return f'[[registry]]\nlocation = "{host}"\ninsecure = true\n'


def skopeo(*words: object, policy: Path | None = None) -> "subprocess.CompletedProcess[str]":
    trust = ["--insecure-policy"] if policy is None else ["--policy", str(policy)]
    return subprocess.run(["skopeo", *trust, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def registries() -> Iterator[tuple[Registry, Registry]]:
    with run_registry() as first, run_registry(auth="basic") as second:
        push(first, "team/app", "v1", INDEX)
        yield first, second


@pytest.fixture
def copier(registries: tuple[Registry, Registry], tmp_path: Path) -> Iterator[Copier]:
    made = Copier(tmp_path, *registries)
    yield made
    assert made.left() == []


@pytest.fixture
def store(tmp_path: Path) -> Iterator[list[str]]:
    """podman with a store of its own."""
    with tempfile.TemporaryDirectory(prefix="podman") as runroot:  # it takes 50 characters at most
        podman = ["podman", "--root", f"{tmp_path}/podman", "--runroot", runroot, "--storage-driver", "vfs"]
        yield podman
        subprocess.run([*podman, "system", "reset", "-f"], capture_output=True, timeout=120, check=False)


@pytest.mark.parametrize("way", ["oci:{}/layout:x", "oci-archive:{}/a.tar:x", "dir:{}/d"])
def test_an_index_goes_through_a_file_and_comes_back(
    copier: Copier, registries: tuple[Registry, Registry], tmp_path: Path, way: str
) -> None:
    between, login = way.format(tmp_path), ("--dest-creds", f"{registries[1].username}:{registries[1].password}")
    assert copier.copied("--all", f"docker://{copier.source}", between) == INDEX.digest
    back = copier.target.reference(f"back/{between.partition(':')[0]}", "v1")
    assert copier.copied("--all", *login, between, back) == INDEX.digest
    credentials = "--creds=" + login[1]
    raw = skopeo("inspect", "--raw", "--tls-verify=false", credentials, f"docker://{back}")
    assert raw.stdout.encode() == INDEX.manifest
    theirs = skopeo("copy", "-q", "--all", between, f"dir:{tmp_path}/theirs")
    assert theirs.returncode == 0, theirs.stderr
    names = {path.name for path in (tmp_path / "theirs").iterdir()} - {"version"}
    assert {f"{image.digest[7:]}.manifest.json" for image in INDEX.images} <= names


@pytest.mark.parametrize("way", ["oci:{}/layout:x", "oci-archive:{}/a.tar:x", "dir:{}/d"])
def test_what_skopeo_wrote_is_copied(copier: Copier, tmp_path: Path, way: str) -> None:
    theirs = way.format(tmp_path)
    done = skopeo("copy", "-q", "--all", "--src-tls-verify=false", f"docker://{copier.source}", theirs)
    assert done.returncode == 0, done.stderr
    assert copier.copied("--all", theirs, f"oci:{tmp_path}/ours:y") == INDEX.digest


def test_docker_archives_are_those_of_skopeo_and_podman(copier: Copier, store: list[str], tmp_path: Path) -> None:
    image, ours, theirs = INDEX.images[0], f"{tmp_path}/ours.tar", f"{tmp_path}/theirs.tar"
    copier.copied("--additional-tag", "example.com/b", copier.source, f"docker-archive:{ours}:example.com/a:v1")
    inspected = skopeo("inspect", "--config", "--raw", f"docker-archive:{ours}:example.com/b:latest")
    assert inspected.stdout.encode() == image.config
    loaded = subprocess.run([*store, "load", "-i", ours], capture_output=True, text=True, timeout=120, check=True)
    assert "example.com/a:v1" in loaded.stdout
    saved = [*store, "save", "-m", "-o", theirs, "example.com/a:v1", "example.com/b:latest"]
    subprocess.run(saved, capture_output=True, timeout=120, check=True)
    digest = copier.copied(f"docker-archive:{theirs}:@0", f"oci:{tmp_path}/layout:v1")
    assert copier.copied(f"docker-archive:{ours}", f"dir:{tmp_path}/dir") == digest
    copied = skopeo("inspect", "--config", "--raw", f"oci:{tmp_path}/layout:v1")
    assert copied.stdout.encode() == image.config
    checked = skopeo("copy", "-q", f"oci:{tmp_path}/layout:v1", f"docker-archive:{tmp_path}/checked.tar:x:y")
    assert checked.returncode == 0, checked.stderr
    assert copier.copied(f"docker-archive:{tmp_path}/checked.tar:x:y", f"dir:{tmp_path}/again") == digest


def test_the_second_copy_sends_nothing(copier: Copier, registries: tuple[Registry, Registry], tmp_path: Path) -> None:
    assert "4 of 4 blobs sent" in copier("--all", copier.source, f"oci:{tmp_path}/layout:x").stderr
    assert "0 of 4 blobs sent" in copier("--all", copier.source, f"oci:{tmp_path}/layout:y").stderr
    mounted = copier("--all", copier.source, registries[0].reference("elsewhere/app", "v9"))
    assert "0 of 4 blobs sent" in mounted.stderr
    assert mounted.stdout.strip() == INDEX.digest


def test_one_platform(copier: Copier, tmp_path: Path) -> None:
    assert copier.copied(copier.source, f"dir:{tmp_path}/here") == INDEX.images[0].digest
    assert copier.copied("--platform", "linux/s390x", copier.source, f"dir:{tmp_path}/there") == INDEX.images[1].digest
    assert "riscv64" in copier("--platform", "linux/riscv64", copier.source, f"dir:{tmp_path}/none").stderr
    assert not (tmp_path / "none").exists()


def test_a_wrong_password_is_told_and_nothing_stays(copier: Copier) -> None:
    done = copier("--dest-creds", "alice:wrong", copier.source, copier.target.reference("x", "v1"))
    assert done.returncode == 1
    assert "wrong" not in done.stderr


@pytest.mark.parametrize("form", ["oci:{}/t:x", "oci-archive:{}/t", "dir:{}/t"])
def test_a_copy_that_is_killed_leaves_no_image_and_the_next_one_works(copier: Copier, tmp_path: Path, form: str) -> None:
    image = make_image([[file("a", os.urandom(1 << 20))], [file("b", os.urandom(1 << 20))]])
    last = json.loads(image.manifest)["layers"][1]["digest"]
    with run_bad_registry() as bad:
        bad.add("big", "v1", image)
        bad.break_at(last, hang_after(1000), times=1)
        (tmp_path / "registries.conf").write_text(bad.registries_conf())
        words = (bad.reference("big", "v1"), form.format(tmp_path))
        with subprocess.Popen(copier.argv(*words), env=copier.environment, stderr=subprocess.DEVNULL) as process:
            wait_for(
                lambda: bool(bad.asked(last)) and (form[:4] != "oci:" or len(list(tmp_path.glob("t/blobs/sha256/*"))) == 2)
            )
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        assert not (tmp_path / "t/index.json").exists()
        assert (tmp_path / "t").exists() is form.startswith("oci:")
        bad.released.set()
        done = copier(*words)
        assert done.stdout.strip() == image.digest
        assert ("1 of 3" if form.startswith("oci:") else "3 of 3") in done.stderr


def test_signatures_go_from_a_lookaside_into_a_dir_and_on(
    copier: Copier, registries: tuple[Registry, Registry], ring: tuple[Gpg, str, Path], tmp_path: Path
) -> None:
    gpg, key, public = ring
    sigstore, source = SigstoreKey.ecdsa(), registries[0].reference("signed/app", "v1")
    push(registries[0], "signed/app", "v1", INDEX)
    (tmp_path / "cosign.pub").write_bytes(sigstore.pem)
    demand = [
        {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(public)},
        {"type": "sigstoreSigned", "keyPath": str(tmp_path / "cosign.pub"), "signedIdentity": {"type": "matchRepository"}},
    ]
    copier.write_policy({"default": [{"type": "reject"}], "transports": {"docker": {"": demand}, "dir": {"": ACCEPT}}})
    refused = copier("--all", source, f"dir:{tmp_path}/d")
    assert "signedBy" in refused.stderr
    for number, each in enumerate((*INDEX.images, INDEX)):
        message = gpg.sign(payload(each.digest, source), key)
        put_signature(copier.lookaside, "signed/app", each.digest, message)
        if number == 0:
            assert "sigstore" in copier("--all", source, f"dir:{tmp_path}/d").stderr
        attach(registries[0], "signed/app", each.digest, [sigstore.sign(payload(each.digest, source, SIGSTORE_KIND))])
    assert copier.copied("--all", source, f"dir:{tmp_path}/d") == INDEX.digest
    kept = sorted(path.name.partition("signature")[0] for path in (tmp_path / "d").glob("*signature-*"))
    assert kept == sorted(["", *(f"{each.digest[7:]}." for each in INDEX.images)] * 2)

    identity = {"type": "exactReference", "dockerReference": source}
    theirs = [{**demand[0], "signedIdentity": identity}]  # Debian's skopeo verifies no sigstore signatures
    (tmp_path / "skopeo.json").write_text(json.dumps({"default": [{"type": "reject"}], "transports": {"dir": {"": theirs}}}))
    checked = skopeo("copy", "-q", f"dir:{tmp_path}/d", f"dir:{tmp_path}/checked", policy=tmp_path / "skopeo.json")
    assert checked.returncode == 0, checked.stderr

    login = ("--dest-creds", f"{registries[1].username}:{registries[1].password}")
    target = copier.target.reference("team/app", "v1")
    copier.copied("--all", *login, f"dir:{tmp_path}/d", target)
    assert len(list(copier.staging.rglob("signature-1"))) == 3
    back = ("--src-creds", login[1], "--all", target, f"dir:{tmp_path}/back")
    assert "signature is for the name" in copier(*back).stderr
    copier.write_policy({"default": ACCEPT})
    copier.copied(*back)
    ours, first = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("back", "d"))
    assert {name for name in ours if "signature" not in name} == {name for name in first if "signature" not in name}
    assert {*(content for name, content in ours.items() if "signature" in name)} == {
        *(content for name, content in first.items() if "signature" in name)
    }


def test_a_layout_takes_no_signatures_unless_they_may_stay_behind(
    copier: Copier, ring: tuple[Gpg, str, Path], tmp_path: Path
) -> None:
    gpg, key, _ = ring
    put_signature(copier.lookaside, "team/app", INDEX.digest, gpg.sign(payload(INDEX.digest, copier.source), key))
    assert "--remove-signatures" in copier("--all", copier.source, f"oci-archive:{tmp_path}/a.tar").stderr
    assert not (tmp_path / "a.tar").exists()
    assert copier.copied("--all", "--remove-signatures", copier.source, f"oci-archive:{tmp_path}/a.tar") == INDEX.digest


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive", "dir"])
def test_the_policy_of_files_counts(copier: Copier, tmp_path: Path, transport: str) -> None:
    there = f"{transport}:{tmp_path}/there"
    copier.copied(copier.source, there)
    copier.write_policy({"default": ACCEPT, "transports": {transport: {"": [{"type": "reject"}]}}})
    assert "reject" in copier(there, f"oci:{tmp_path}/again").stderr
    assert not (tmp_path / "again").exists()
