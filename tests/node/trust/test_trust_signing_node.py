"""`kpod sign` and `kpod verify` at a real registry; our own pull and, for gpg, skopeo
are the judges of what was signed (Debian's skopeo does not read sigstore)."""

import base64
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from support.images import file, make_image, make_index, push
from support.signing import SigstoreKey, policy, write_json
from support.trusting import REPOSITORY as HOSTED
from support.trusting import Place

pytestmark = pytest.mark.node

ARM = {"os": "linux", "architecture": "arm64"}


@dataclass(frozen=True)
class Signer:
    """`kpod` in a home of its own, with the registry and the lookaside of `place`."""

    place: Place
    home: Path
    gnupg: Path

    def __call__(self, *words: str) -> "subprocess.CompletedProcess[str]":
        env = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.home),
            "GNUPGHOME": str(self.gnupg),
            "CONTAINERS_REGISTRIES_CONF": str(self.home / "registries.conf"),
            "CONTAINERS_REGISTRIES_CONF_DIR": str(self.home / "registries.conf.d"),
        }
        argv = [sys.executable, "-c", "import sys; from criollo.kpod.main import run; sys.exit(run())", "-c", "", "-d", ""]
        done = subprocess.run([*argv, *words], capture_output=True, text=True, env=env, timeout=120)
        print(done.stdout, done.stderr)
        return done

    def rules(self, *demands: dict[str, Any]) -> None:
        write_json(self.home / ".config/containers/policy.json", policy(*demands))


@pytest.fixture
def kpod(place: Place, keys: Any, tmp_path: Path) -> Signer:
    home = tmp_path / "home"
    (home / ".config/containers").mkdir(parents=True)
    (home / ".config/containers/registries.d").symlink_to(place.conf_d)
    (home / "registries.conf").write_text(place.registry.registries_conf())
    return Signer(place, home, keys.ring.home)


def private(key: SigstoreKey, path: Path, passphrase: bytes = b"") -> Path:
    hidden = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    path.write_bytes(key.private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden))
    return path


def takes(place: Place, rules: dict[str, Any], name: str, root: Path) -> bool:
    root.mkdir()
    return place.accepts(rules, name, root)


def sigstore(key: SigstoreKey) -> dict[str, Any]:
    return {"type": "sigstoreSigned", "keyData": base64.b64encode(key.pem).decode()}


def by_gpg(keys: Any, fingerprint: str) -> dict[str, Any]:
    return {"type": "signedBy", "keyType": "GPGKeys", "keyData": base64.b64encode(keys.ring.export(fingerprint)).decode()}


def skopeo_takes(place: Place, name: str, demand: dict[str, Any], root: Path) -> bool:
    rules = write_json(root / "skopeo-policy.json", policy(demand))
    argv = ["skopeo", "--policy", str(rules), "--registries.d", str(place.conf_d), "copy", "--src-tls-verify=false"]
    done = subprocess.run(
        [*argv, f"docker://{name}", f"dir:{root / 'copied'}", "--remove-signatures"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    print(done.stderr)
    assert done.returncode == 0 or "Source image rejected" in done.stderr, done.stderr
    return done.returncode == 0


@pytest.mark.parametrize("kind", ["ecdsa", "rsa", "ed25519"])
def test_a_key_in_a_file_signs_for_our_pull(kpod: Signer, place: Place, tmp_path: Path, kind: str) -> None:
    key: SigstoreKey = getattr(SigstoreKey, kind)()
    digest, name = place.image()
    done = kpod("sign", "--key", str(private(key, tmp_path / "key.pem")), f"docker://{name}")
    assert done.stdout.split() == [digest, f"{name.rpartition(':')[0]}:{digest.replace(':', '-')}.sig"]
    assert takes(place, policy(sigstore(key)), name, tmp_path / "pull")
    assert not takes(place, policy(sigstore(SigstoreKey.ecdsa())), name, tmp_path / "pull2")


def test_a_second_signature_stands_beside_the_first(kpod: Signer, place: Place, tmp_path: Path) -> None:
    one, other = SigstoreKey.ecdsa(), SigstoreKey.ecdsa()
    _, name = place.image()
    for key in (one, other):
        assert kpod("sign", "--key", str(private(key, tmp_path / "key.pem")), name).returncode == 0
    assert takes(place, policy(sigstore(one), sigstore(other)), name, tmp_path / "pull")


def test_a_key_with_a_passphrase(kpod: Signer, place: Place, tmp_path: Path) -> None:
    key = SigstoreKey.ecdsa()
    _, name = place.image()
    private(key, tmp_path / "key.pem", b"open sesame")
    (tmp_path / "right").write_text("open sesame\n")
    (tmp_path / "wrong").write_text("open barley\n")
    words = ["sign", "--key", str(tmp_path / "key.pem"), name, "--passphrase-file"]
    refused = kpod(*words, str(tmp_path / "wrong"))
    assert refused.returncode == 1
    assert "passphrase" in refused.stderr
    assert kpod(*words, str(tmp_path / "right")).returncode == 0
    assert takes(place, policy(sigstore(key)), name, tmp_path / "pull")


def test_what_is_no_key_is_said(kpod: Signer, place: Place, tmp_path: Path) -> None:
    _, name = place.image()
    (tmp_path / "key.pem").write_text("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    (tmp_path / "any").write_text("x")
    for key, said in ((tmp_path / "absent", "a file that exists"), (tmp_path / "any", "a private key in PEM")):
        refused = kpod("sign", "--key", str(key), name)
        assert (refused.returncode, said in refused.stderr) == (1, True)
    assert "cosign" in kpod("sign", "--key", str(tmp_path / "key.pem"), "--passphrase-file", str(tmp_path / "any"), name).stderr


def test_gpg_signs_into_the_lookaside(kpod: Signer, place: Place, keys: Any, tmp_path: Path) -> None:
    digest, name = place.image()
    done = kpod("sign", "--sign-by", keys.good, name)
    assert done.stdout.split() == [digest, str(place.lookaside / f"{HOSTED}@{digest.replace(':', '=')}/signature-1")]
    assert takes(place, policy(by_gpg(keys, keys.good)), name, tmp_path / "pull")
    assert skopeo_takes(place, name, by_gpg(keys, keys.good), tmp_path)
    again = kpod("sign", "--sign-by", keys.other, name)
    assert again.stdout.split()[1].endswith("/signature-2")
    assert takes(place, policy(by_gpg(keys, keys.good), by_gpg(keys, keys.other)), name, tmp_path / "pull2")


def test_a_key_that_gpg_does_not_have(kpod: Signer, place: Place) -> None:
    _, name = place.image()
    refused = kpod("sign", "--sign-by", "nobody@example.org", name)
    assert refused.returncode == 1
    assert "cannot sign with the key nobody@example.org" in refused.stderr


def test_of_an_index_what_it_lists_is_signed(kpod: Signer, place: Place, tmp_path: Path) -> None:
    key = SigstoreKey.ecdsa()
    index = make_index([make_image([[file("a", f"{number}")]], platform=each) for number, each in enumerate((None, ARM))])
    digest = push(place.registry, HOSTED, "both", index)
    name = place.registry.reference(HOSTED, "both")
    done = kpod("sign", "--key", str(private(key, tmp_path / "key.pem")), name)
    assert len(done.stdout.splitlines()) == 3
    assert done.stdout.startswith(digest)
    assert takes(place, policy(sigstore(key)), name, tmp_path / "pull")


def test_verify_tells_the_verdict_and_why(kpod: Signer, place: Place, tmp_path: Path) -> None:
    key = SigstoreKey.ecdsa()
    digest, name = place.image()
    kpod.rules(sigstore(key))
    refused = kpod("verify", "--json", name)
    assert refused.returncode == 1
    told = json.loads(refused.stdout)
    assert (told["digest"], told["found"]) == (digest, {})
    assert "there is no sigstore signature of it" in told["refusal"]
    assert kpod("sign", "--key", str(private(key, tmp_path / "key.pem")), name).returncode == 0
    passed = kpod("verify", name)
    assert passed.returncode == 0
    assert "1 of sigstore" in passed.stdout
    assert "it may run" in passed.stdout


def test_verify_by_a_key_of_the_command_line(kpod: Signer, place: Place, keys: Any, tmp_path: Path) -> None:
    right, wrong = SigstoreKey.ecdsa(), SigstoreKey.ecdsa()
    _, name = place.image()
    (tmp_path / "right").write_bytes(right.pem)
    (tmp_path / "wrong").write_bytes(wrong.pem)
    (tmp_path / "gpg").write_bytes(keys.ring.export(keys.good))
    assert kpod("sign", "--key", str(private(right, tmp_path / "key.pem")), name).returncode == 0
    assert kpod("verify", "--key", str(tmp_path / "right"), name).returncode == 0
    assert kpod("verify", "--key", str(tmp_path / "wrong"), name).returncode == 1
    assert kpod("verify", "--gpg-key", str(tmp_path / "gpg"), name).returncode == 1
    assert kpod("sign", "--sign-by", keys.good, name).returncode == 0
    assert kpod("verify", "--gpg-key", str(tmp_path / "gpg"), name).returncode == 0
    assert kpod("verify", "--gpg-key", str(tmp_path / "absent"), name).returncode == 1


def test_one_way_to_sign_is_asked_for(kpod: Signer, place: Place, tmp_path: Path) -> None:
    _, name = place.image()
    assert kpod("sign", name).returncode == 2
    assert kpod("sign", "--key", "k", "--sign-by", "x", name).returncode == 2
    assert kpod("verify", "--key", "k", "--gpg-key", "x", name).returncode == 2
