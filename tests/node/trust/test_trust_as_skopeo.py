"""Our verdict is skopeo's: the same images, the same policy.json, the same registries.d, two readers."""

import base64
import json
import subprocess

import pytest
from support.images import file, make_image, make_index, push
from support.signing import SIGSTORE, payload, policy, put_signature, write_json
from support.trusting import REPOSITORY as HOSTED

from criollo.errors import Denied, Invalid

pytestmark = pytest.mark.node

REJECT, ACCEPT = {"type": "reject"}, {"type": "insecureAcceptAnything"}


def ours(place, rules, reference, root):
    """Whether we pull the image, and would run it."""
    error = place.verdict(rules, reference, root)
    assert error is None or isinstance(error, Denied | Invalid), error
    return error is None


def theirs(place, rules, reference, root):
    """Whether skopeo copies it."""
    argv = ["skopeo", "--policy", str(rules), "--registries.d", str(place.conf_d), "copy", "--src-tls-verify=false"]
    argv += [f"docker://{reference}", f"dir:{root / 'copied'}", "--remove-signatures"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    print(done.stderr)
    assert done.returncode == 0 or "Source image rejected" in done.stderr or "invalid policy" in done.stderr, done.stderr
    return done.returncode == 0


def agree(place, tmp_path, document, reference, expected):
    rules = write_json(tmp_path / "policy.json", document)
    assert (ours(place, rules, reference, tmp_path / "ours"), theirs(place, rules, reference, tmp_path)) == (expected, expected)


def by(keys, *fingerprints, **more):
    key = base64.b64encode(keys.ring.export(*(fingerprints or (keys.good,)))).decode()
    return {"type": "signedBy", "keyType": "GPGKeys", "keyData": key, **more}


def test_a_signature_by_the_key_of_the_policy(place, keys, tmp_path):
    digest, name = place.image()
    put_signature(place.lookaside, HOSTED, digest, keys.sign(payload(digest, name), keys.good))
    agree(place, tmp_path, policy(by(keys)), name, True)


def test_the_same_by_digest(place, keys, tmp_path):
    digest, name = place.image()
    put_signature(place.lookaside, HOSTED, digest, keys.sign(payload(digest, name), keys.good))
    agree(place, tmp_path, policy(by(keys)), f"{name.rpartition(':')[0]}@{digest}", True)


@pytest.mark.parametrize("armor", [False, True])
def test_a_key_file(place, keys, tmp_path, armor):
    (tmp_path / "key").write_bytes(keys.ring.export(keys.good, armor=armor))
    digest, name = place.image()
    put_signature(place.lookaside, HOSTED, digest, keys.sign(payload(digest, name), keys.good))
    rule = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(tmp_path / "key")}
    agree(place, tmp_path, policy(rule), name, True)


def test_signed_by_skopeo_itself(place, keys, tmp_path):
    _, name = place.image()
    writing = tmp_path / "writing"
    writing.mkdir()
    (writing / "a.yaml").write_text(json.dumps({"default-docker": {"lookaside": f"file://{place.lookaside}"}}))
    argv = ["skopeo", "--insecure-policy", "--registries.d", str(writing), "copy", "--sign-by", keys.good]
    argv += ["--src-tls-verify=false", "--dest-tls-verify=false", f"docker://{name}", f"docker://{name}"]
    subprocess.run(argv, check=True, capture_output=True, env={"GNUPGHOME": str(keys.ring.home), "PATH": "/usr/bin:/bin"})
    agree(place, tmp_path, policy(by(keys)), name, True)


BAD = {
    "wrong key": lambda keys, digest, name: keys.sign(payload(digest, name), keys.other),
    "expired key": lambda keys, digest, name: keys.sign(payload(digest, name), keys.expired, at="20200102T000000"),
    "expired signature": lambda keys, digest, name: keys.sign(
        payload(digest, name), keys.old, at="20200102T000000", options=["--default-sig-expire", "1d"]
    ),
    "other digest": lambda keys, digest, name: keys.sign(payload("sha256:" + "0" * 64, name), keys.good),
    "other name": lambda keys, digest, name: keys.sign(payload(digest, name.replace("app", "other")), keys.good),
    "other tag": lambda keys, digest, name: keys.sign(payload(digest, name + "2"), keys.good),
    "no tag": lambda keys, digest, name: keys.sign(payload(digest, name.rpartition(":")[0]), keys.good),
    "two signers": lambda keys, digest, name: keys.sign(payload(digest, name), keys.good, keys.other),
    "other type": lambda keys, digest, name: keys.sign(payload(digest, name, SIGSTORE), keys.good),
    "further field": lambda keys, digest, name: keys.sign(payload(digest, name, more=1), keys.good),
    "no JSON": lambda keys, digest, name: keys.sign(b"hello", keys.good),
    "clear signed": lambda keys, digest, name: keys.ring.sign(payload(digest, name), keys.good, options=["--armor"]),
    "cut": lambda keys, digest, name: keys.sign(payload(digest, name), keys.good)[:-20],
    "tampered": lambda keys, digest, name: flipped(keys.sign(payload(digest, name), keys.good, options=["-z", "0"])),
    "nothing": lambda keys, digest, name: b"",
    "garbage": lambda keys, digest, name: b"\x90garbage",
}


def flipped(message):
    at = message.index(b"1700000000")
    return message[:at] + b"2" + message[at + 1 :]


@pytest.mark.parametrize("kind", BAD)
def test_signatures_that_prove_nothing(place, keys, tmp_path, kind):
    digest, name = place.image()
    put_signature(place.lookaside, HOSTED, digest, BAD[kind](keys, digest, name))
    rules = write_json(tmp_path / "policy.json", policy(by(keys, keys.good, keys.expired, keys.old)))
    assert not ours(place, rules, name, tmp_path / "ours")
    if kind not in ("nothing", "garbage"):  # there skopeo has its own words
        assert not theirs(place, rules, name, tmp_path)


def test_a_revoked_key(place, keys, tmp_path):
    digest, name = place.image()
    put_signature(place.lookaside, HOSTED, digest, keys.sign(payload(digest, name), keys.revoked))
    agree(place, tmp_path, policy(by(keys, keys.revoked)), name, True)
    keys.ring.revoke(keys.revoked)
    (tmp_path / "later").mkdir()
    agree(place, tmp_path / "later", policy(by(keys, keys.revoked)), name, False)


def test_an_old_signature_by_a_key_that_is_still_good(place, keys, tmp_path):
    digest, name = place.image()
    put_signature(place.lookaside, HOSTED, digest, keys.sign(payload(digest, name), keys.old, at="20200102T000000"))
    agree(place, tmp_path, policy(by(keys, keys.old)), name, True)


def test_an_image_without_signatures(place, keys, tmp_path):
    _, name = place.image()
    agree(place, tmp_path, policy(by(keys)), name, False)


def test_one_good_signature_among_bad_ones(place, keys, tmp_path):
    digest, name = place.image()
    for number, fingerprint in enumerate((keys.other, keys.expired, keys.good), start=1):
        message = keys.sign(payload(digest, name), fingerprint, at="20200102T000000" if fingerprint == keys.expired else "")
        put_signature(place.lookaside, HOSTED, digest, message, number=number)
    agree(place, tmp_path, policy(by(keys)), name, True)


def test_a_gap_ends_the_list(place, keys, tmp_path):
    digest, name = place.image()
    put_signature(place.lookaside, HOSTED, digest, keys.sign(payload(digest, name), keys.good), number=2)
    agree(place, tmp_path, policy(by(keys)), name, False)


@pytest.mark.parametrize(
    ("signed", "identity", "expected"),
    [
        ("{host}/team/app:v1", {"type": "matchExact"}, True),
        ("{host}/team/app:v2", {"type": "matchExact"}, False),
        ("{host}/team/app:v2", {"type": "matchRepository"}, True),
        ("{host}/team/app", {"type": "matchRepository"}, True),
        ("{host}/team/other:v1", {"type": "matchRepository"}, False),
        ("example.com/x:y", {"type": "exactReference", "dockerReference": "example.com/x:y"}, True),
        ("example.com/x:z", {"type": "exactReference", "dockerReference": "example.com/x:y"}, False),
        ("docker.io/library/busybox:1", {"type": "exactReference", "dockerReference": "busybox:1"}, True),
        ("example.com/x:z", {"type": "exactRepository", "dockerRepository": "example.com/x"}, True),
        ("example.com/xx:z", {"type": "exactRepository", "dockerRepository": "example.com/x"}, False),
        ("example.com/app:v1", {"type": "remapIdentity", "prefix": "{host}/team", "signedPrefix": "example.com"}, True),
        ("example.com/app:v2", {"type": "remapIdentity", "prefix": "{host}/team", "signedPrefix": "example.com"}, False),
        ("example.com/team/app:v1", {"type": "remapIdentity", "prefix": "{host}", "signedPrefix": "example.com"}, True),
        ("{host}/team/app:v1", {"type": "remapIdentity", "prefix": "{host}/te", "signedPrefix": "example.com"}, True),
        ("example.com/a/b:v1", {"type": "remapIdentity", "prefix": "{host}/team/app", "signedPrefix": "example.com/a/b"}, True),
        ("app:v1", {"type": "remapIdentity", "prefix": "{host}/team", "signedPrefix": "docker.io/library"}, True),
        ("team/app:v1", {"type": "remapIdentity", "prefix": "{host}", "signedPrefix": "docker.io"}, True),
        ("app:v1", {"type": "remapIdentity", "prefix": "{host}/team", "signedPrefix": "docker.io"}, False),
        ("x.y:v1", {"type": "remapIdentity", "prefix": "{host}/team/app", "signedPrefix": "x.y"}, False),
    ],
)
def test_identities(place, keys, tmp_path, signed, identity, expected):
    identity = {key: value.format(host=place.registry.host) for key, value in identity.items()}
    digest, name = place.image()
    message = keys.sign(payload(digest, signed.format(host=place.registry.host)), keys.good)
    put_signature(place.lookaside, HOSTED, digest, message)
    agree(place, tmp_path, policy(by(keys, signedIdentity=identity)), name, expected)


@pytest.mark.parametrize(
    ("signed", "kind", "expected"),
    [
        ("v1", "matchExact", False),
        ("v7", "matchRepoDigestOrExact", True),
        ("@", "matchExact", True),
        ("v1", "matchRepository", True),
    ],
)
def test_identities_by_digest(place, keys, tmp_path, signed, kind, expected):
    digest, name = place.image()
    repository = name.rpartition(":")[0]
    signed_name = f"{repository}@{digest}" if signed == "@" else f"{repository}:{signed}"
    put_signature(place.lookaside, HOSTED, digest, keys.sign(payload(digest, signed_name), keys.good))
    agree(place, tmp_path, policy(by(keys, signedIdentity={"type": kind})), f"{repository}@{digest}", expected)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([ACCEPT], True),
        ([REJECT], False),
        (["good"], True),
        (["other"], False),
        ([{"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}], False),
    ],
)
def test_all_requirements_must_hold(place, keys, tmp_path, more, expected):
    digest, name = place.image()
    put_signature(place.lookaside, HOSTED, digest, keys.sign(payload(digest, name), keys.good))
    further = [by(keys, getattr(keys, each)) if isinstance(each, str) else each for each in more]
    agree(place, tmp_path, policy(by(keys), *further), name, expected)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("{host}", True),
        ("{host}/team", True),
        ("{host}/team/app", True),
        ("{host}/team/app:v1", True),
        ("{host}/tea", False),
        ("", True),
        ("*.0.0.1", True),
        ("*.0.0.1:{port}", False),
        ("{address}", False),
    ],
)
def test_scopes(place, tmp_path, scope, expected):
    _, name = place.image()
    address, _, port = place.registry.host.partition(":")
    scope = scope.format(host=place.registry.host, address=address, port=port)
    document = {"default": [REJECT], "transports": {"docker": {scope: [ACCEPT]}}}
    agree(place, tmp_path, document, name, expected)


@pytest.mark.parametrize(
    "change",
    [
        {"keyPath": "/x"}, {"keyType": "none"}, {"keyType": "X509Certificates"}, {"unknown": 1},
        {"signedIdentity": {"type": "matchExact", "x": 1}}, {"signedIdentity": {"type": "none"}},
        {"signedIdentity": {"type": "exactReference", "dockerReference": "example.com/x"}},
        {"signedIdentity": {"type": "remapIdentity", "prefix": "example.com"}},
        {"signedIdentity": {"type": "remapIdentity", "prefix": "example.com:v1/", "signedPrefix": "x.y"}},
        {"keyData": "%"}, {"keyData": base64.b64encode(b"no key").decode()},
    ],
)  # fmt: skip
def test_policies_with_a_fault(place, keys, tmp_path, change):
    digest, name = place.image()
    put_signature(place.lookaside, HOSTED, digest, keys.sign(payload(digest, name), keys.good))
    rules = write_json(tmp_path / "policy.json", policy(by(keys) | change))
    assert not ours(place, rules, name, tmp_path / "ours")
    argv = ["skopeo", "--policy", str(rules), "--registries.d", str(place.conf_d), "copy", "--src-tls-verify=false"]
    done = subprocess.run([*argv, f"docker://{name}", f"dir:{tmp_path / 'copied'}"], capture_output=True, timeout=120)
    assert done.returncode != 0


def test_an_index_does_not_vouch_for_what_it_lists(place, keys, tmp_path):
    index = make_index([make_image([[file("a", f"index{next(place.numbers)}")]])])
    whole = push(place.registry, HOSTED, "index", index)
    name = place.registry.reference(HOSTED, "index")
    put_signature(place.lookaside, HOSTED, whole, keys.sign(payload(whole, name), keys.good))
    agree(place, tmp_path, policy(by(keys)), name, False)
    instance = index.images[0].digest
    put_signature(place.lookaside, HOSTED, instance, keys.sign(payload(instance, name), keys.good))
    (tmp_path / "signed").mkdir()
    agree(place, tmp_path / "signed", policy(by(keys)), name, True)
