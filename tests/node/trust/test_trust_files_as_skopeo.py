"""Images from files: our verdict is skopeo's, for each transport, its scopes, and the signatures that a `dir` brings."""

import asyncio
import base64
import json
import subprocess

import pytest
from support.image_store import run_judged
from support.images import file, make_image, write_docker_archive, write_oci_archive, write_oci_layout
from support.signing import payload, write_json

from criollo.aio import threads
from criollo.errors import Denied, Invalid
from criollo.images.copysources import Ruled, opened_dir
from criollo.images.load import load_images
from criollo.trust.judge import Judge
from criollo.trust.places import FilePlace
from criollo.trust.policies import Policies
from criollo.trust.policy import Policy

pytestmark = pytest.mark.node

NAME = "registry.example/team/app:v1"
IMAGE = make_image([[file("a")]])
ACCEPT, REJECT = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
ANY_NAME = {"": ACCEPT}
EXACT = {"type": "exactReference", "dockerReference": NAME}


def write_dir(path, *signatures):
    path.mkdir(parents=True)
    (path / "version").write_text("Directory Transport Version: 1.1\n")
    (path / "manifest.json").write_bytes(IMAGE.manifest)
    for digest, content in IMAGE.blobs.items():
        (path / digest.partition(":")[2]).write_bytes(content)
    for number, signature in enumerate(signatures, 1):
        (path / f"signature-{number}").write_bytes(signature)
    return path


WRITERS = {
    "dir": lambda path: write_dir(path),
    "oci": lambda path: write_oci_layout(path, {NAME: IMAGE}),
    "oci-archive": lambda path: write_oci_archive(path, {NAME: IMAGE}),
    "docker-archive": lambda path: write_docker_archive(path, {NAME: IMAGE}),
}


def by(keys, *fingerprints, **more):
    key = base64.b64encode(keys.ring.export(*(fingerprints or (keys.good,)))).decode()
    return {"type": "signedBy", "keyType": "GPGKeys", "keyData": key, **more}


def theirs(rules, transport, path, root):
    argv = ["skopeo", "--policy", str(rules), "copy", "--remove-signatures", f"{transport}:{path}", f"dir:{root / 'copied'}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    print("skopeo:", done.stderr)
    assert done.returncode == 0 or "rejected" in done.stderr or "invalid policy" in done.stderr, done.stderr
    return done.returncode == 0


def ours(rules, path, root):
    try:
        policy = json.loads(rules.read_text())
        Policy.load(rules)
    except Invalid as error:
        print("ours:", error)
        return False
    passed = []

    async def body(images):
        try:
            await load_images(images, path)
            passed.append(True)
        except Denied as error:
            print("ours:", error)
            assert images.rows.all() == []

    root.mkdir()
    run_judged(root, policy, body)
    return bool(passed)


def agree(tmp_path, transport, path, transports, expected, default=None):
    document = {"default": default or REJECT, "transports": {"docker": ANY_NAME, **transports}}
    rules = write_json(tmp_path / "policy.json", document)
    assert (ours(rules, path, tmp_path / "ours"), theirs(rules, transport, path, tmp_path)) == (expected, expected)


@pytest.mark.parametrize("transport", WRITERS)
@pytest.mark.parametrize(
    ("scopes", "expected"),
    [({}, False), ({"": ACCEPT}, True), ({"": REJECT}, False), ({"": [*ACCEPT, *REJECT]}, False)],
)
def test_a_transport_as_a_whole(tmp_path, transport, scopes, expected):
    path = WRITERS[transport](tmp_path / "there")
    agree(tmp_path, transport, path, {transport: scopes}, expected)


@pytest.mark.parametrize("transport", ["dir", "oci", "oci-archive"])
@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        ({"$T/in/there": ACCEPT}, True),
        ({"$T/in": ACCEPT}, True),
        ({"$T": ACCEPT, "$T/in": REJECT}, False),
        ({"$T": REJECT, "$T/in": ACCEPT}, True),
        ({"$T/i": ACCEPT}, False),
        ({"$T/out": ACCEPT}, False),
    ],
)
def test_scopes_are_paths(tmp_path, transport, scopes, expected):
    (tmp_path / "in").mkdir()
    path = WRITERS[transport](tmp_path / "in/there")
    scopes = {scope.replace("$T", str(tmp_path)): demand for scope, demand in scopes.items()}
    agree(tmp_path, transport, path, {transport: scopes}, expected)


@pytest.mark.parametrize("transport", ["dir", "oci", "oci-archive"])
@pytest.mark.parametrize("way", ["link", "in/link", "in/../out/there"])
def test_a_path_is_where_it_leads_to(tmp_path, transport, way):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    WRITERS[transport](tmp_path / "out/there")
    (tmp_path / "link").symlink_to("out/there")
    (tmp_path / "in/link").symlink_to("../out/there")
    scopes = {str(tmp_path / "in"): ACCEPT, str(tmp_path / "out"): REJECT, str(tmp_path): ACCEPT}
    agree(tmp_path, transport, tmp_path / way, {transport: scopes}, False)


SCOPES = [
    ("docker-archive", "/srv/a.tar"), ("docker-archive", "a.b/c:1"), ("tarball", "/srv"), ("dir", "/"), ("dir", "srv"),
    ("dir", "/srv/"), ("oci", "srv"), ("oci", "/srv/../a"), ("oci", "/"), ("oci-archive", "/srv//a"), ("sif", "srv"),
    ("sif", "/srv/"),
    ("dir", "/srv"), ("oci", "/srv/a"), ("oci-archive", "/srv/a.tar"), ("sif", "/srv/a"), ("docker-daemon", "a.b/c"),
    ("atomic", "a.b/c"), ("containers-storage", "[overlay@/var/lib/containers]"), ("no-such-transport", "any thing"),
]  # fmt: skip


@pytest.mark.parametrize(("transport", "scope"), SCOPES)
def test_a_policy_with_such_a_scope_is_read_or_refused_alike(tmp_path, transport, scope):
    path = WRITERS["oci"](tmp_path / "there")
    transports = {"oci": {"": ACCEPT}, transport: {"": ACCEPT, scope: REJECT}}
    rules = write_json(tmp_path / "policy.json", {"default": REJECT, "transports": {"docker": ANY_NAME, **transports}})
    assert ours(rules, path, tmp_path / "ours") == theirs(rules, "oci", path, tmp_path)


SIGNED = {
    # what the signature says, which key made it, which identity the policy wants, whether that is enough
    "the name": (NAME, "good", EXACT, True),
    "another name": ("registry.example/team/other:v1", "good", EXACT, False),
    "another tag": (NAME + "2", "good", EXACT, False),
    "the repository": (NAME + "2", "good", {"type": "exactRepository", "dockerRepository": NAME.rpartition(":")[0]}, True),
    "another repository": (NAME, "good", {"type": "exactRepository", "dockerRepository": "registry.example/team/b"}, False),
    "another key": (NAME, "other", EXACT, False),
    "an expired key": (NAME, "expired", EXACT, False),
    "the default identity": (NAME, "good", None, False),
    "matchExact": (NAME, "good", {"type": "matchExact"}, False),
    "matchRepository": (NAME, "good", {"type": "matchRepository"}, False),
    "remapIdentity": (NAME, "good", {"type": "remapIdentity", "prefix": "a.b", "signedPrefix": "registry.example"}, False),
    "no signature": ("", "good", EXACT, False),
}


@pytest.mark.parametrize("label", SIGNED)
def test_a_dir_that_has_to_be_signed(tmp_path, keys, label):
    name, key, identity, expected = SIGNED[label]
    when = {"at": "20200102T000000"} if key == "expired" else {}
    signatures = [keys.sign(payload(IMAGE.digest, name), getattr(keys, key), **when)] if name else []
    path = write_dir(tmp_path / "there", *signatures)
    demand = by(keys, keys.good, keys.expired, **({"signedIdentity": identity} if identity else {}))
    agree(tmp_path, "dir", path, {"dir": {str(tmp_path): [demand]}}, expected)


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive"])
def test_other_files_have_no_signatures(tmp_path, keys, transport):
    path = WRITERS[transport](tmp_path / "there")
    agree(tmp_path, transport, path, {transport: {"": [by(keys, signedIdentity=EXACT)]}}, False)


def test_a_signature_of_another_manifest_does_not_count(tmp_path, keys):
    path = write_dir(tmp_path / "there", keys.sign(payload("sha256:" + "0" * 64, NAME), keys.good))
    agree(tmp_path, "dir", path, {"dir": {"": [by(keys, signedIdentity=EXACT)]}}, False)


def test_the_default_of_the_policy_is_for_files_too(tmp_path, keys):
    path = write_dir(tmp_path / "there", keys.sign(payload(IMAGE.digest, NAME), keys.good))
    agree(tmp_path, "dir", path, {}, True, default=[by(keys, signedIdentity=EXACT)])


def test_a_dir_must_meet_all_demands(tmp_path, keys):
    path = write_dir(tmp_path / "there", keys.sign(payload(IMAGE.digest, NAME), keys.good))
    good, other = (by(keys, key, signedIdentity=EXACT) for key in (keys.good, keys.other))
    agree(tmp_path, "dir", path, {"dir": {"": [good, *ACCEPT]}}, True)
    (tmp_path / "more").mkdir()
    agree(tmp_path / "more", "dir", path, {"dir": {"": [good, other]}}, False)


@pytest.mark.parametrize(("key", "passes"), [("good", True), ("other", False)])
def test_a_copy_out_of_a_dir_is_judged_as_a_load_is(tmp_path, keys, key, passes):
    path = write_dir(tmp_path / "there", keys.sign(payload(IMAGE.digest, NAME), getattr(keys, key)))
    demand = by(keys, signedIdentity=EXACT)
    rules = Policy.parse(json.dumps({"default": REJECT, "transports": {"dir": {"": [demand]}}}).encode(), where="x")
    ruled = Ruled(Judge(Policies.of(rules), scratch=tmp_path / "scratch"), FilePlace.at("dir", path))
    ruled.judge.judge_file(ruled.place)

    async def copy():
        with opened_dir(path, ruled) as source:
            found = await source.document(None)
            await source.judge(found, await source.signatures(found, carried=False))

    try:
        if passes:
            asyncio.run(copy())
            return
        with pytest.raises(Denied, match="demands signedBy"):
            asyncio.run(copy())
    finally:
        threads.close()
