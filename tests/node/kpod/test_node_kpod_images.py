"""kpod's verbs for images, with a daemon and alone, against real registries; skopeo is the second opinion."""

import hashlib
import io
import json
import os
import subprocess
import tarfile  # noqa: TID251 - a second reader of what we packed
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kpod_node import Kpod
from support.images import (
    Image,
    busybox_image,
    busybox_layer,
    digest_of,
    directory,
    file,
    hardlink,
    make_image,
    make_index,
    opaque,
    push,
    symlink,
    whiteout,
)
from support.registry import Registry, run_registry

pytestmark = [pytest.mark.node, pytest.mark.usefixtures("no_images_left")]

TREE = [file("a/b", "x" * 5000, mode=0o600, uid=7, gid=8), symlink("l", "a/b"), hardlink("h", "a/b"), directory("gone")]
ABOVE = [whiteout("gone"), opaque("a"), file("a/new", "y" * 3000)]


class Registries:
    """One that is open and one with a password over TLS."""

    def __init__(self, public: Registry, private: Registry) -> None:
        self.public, self.private = public, private

    def registries_conf(self) -> str:
        return self.public.registries_conf() + f'[[registry]]\nlocation = "{self.private.host}"\ninsecure = true\n'

    def reference(self, repository: str, tag: str = "latest") -> str:
        return self.public.reference(repository, tag)


def layered() -> Image:
    return make_image([busybox_layer(), TREE, ABOVE], config={"Cmd": ["sh"], "Env": ["A=b"], "Labels": {"is": "layered"}})


@pytest.fixture(scope="module")
def registry() -> Iterator[Registries]:
    with run_registry() as public, run_registry("basic", tls=True) as private:
        push(public, "busybox", "latest", busybox_image())
        push(public, "layered", "v1", layered())
        other = make_image([[file("x", "arm")]], platform={"os": "linux", "architecture": "arm64"})
        push(public, "many", "v1", make_index([other, layered()]))
        yield Registries(public, private)


def said(kpod: Kpod, *words: object) -> Any:
    """What a verb prints as JSON."""
    answer = kpod(*words)
    assert answer.status == 0, answer.err
    return json.loads(answer.out)


def ok(kpod: Kpod, *words: object, stdin: bytes = b"") -> str:
    answer = kpod(*words, stdin=stdin)
    assert answer.status == 0, answer.err
    return answer.out.strip()


def skopeo(*words: str) -> str:
    done = subprocess.run(["skopeo", *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def blobs(registry: Registry) -> dict[str, int]:
    """Every blob that a registry has, with the time it was written."""
    return {str(path): path.stat().st_mtime_ns for path in (registry.root / "store").rglob("blobs/sha256/*/*/data")}


def flattened(layout: Path) -> dict[str, tuple[object, ...]]:
    """The files of an image in an OCI layout, as a plain reader of tars sees them, layer over layer."""
    index = json.loads((layout / "index.json").read_bytes())

    def blob(digest: str) -> bytes:
        content = (layout / "blobs" / digest.replace(":", "/")).read_bytes()
        assert digest_of(content) == digest
        return content

    manifest = json.loads(blob(index["manifests"][0]["digest"]))
    diff_ids = json.loads(blob(manifest["config"]["digest"]))["rootfs"]["diff_ids"]
    seen: dict[str, tuple[object, ...]] = {}
    for layer, diff_id in zip(manifest["layers"], diff_ids, strict=True):
        raw = blob(layer["digest"])
        plain = (
            subprocess.run(["gzip", "-dc"], input=raw, capture_output=True, check=True).stdout
            if raw[:2] == b"\x1f\x8b"
            else raw
        )
        assert digest_of(plain) == diff_id
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            _lay_over(seen, archive)
    return dict(sorted(seen.items()))


def _lay_over(seen: dict[str, tuple[object, ...]], archive: tarfile.TarFile) -> None:
    for member in archive:
        name = os.path.normpath(member.name)
        place, base = os.path.split(name)
        if base == ".wh..wh..opq":
            for gone in [each for each in seen if each.startswith(f"{place}/")]:
                del seen[gone]
        elif base.startswith(".wh."):
            target = os.path.join(place, base.removeprefix(".wh."))
            for gone in [each for each in seen if each == target or each.startswith(f"{target}/")]:
                del seen[gone]
        elif member.islnk():
            seen[name] = seen[os.path.normpath(member.linkname)]
        elif name != ".":
            content = archive.extractfile(member).read() if member.isreg() else b""  # type: ignore[union-attr]
            link = member.linkname if member.issym() else ""
            seen[name] = (member.type, member.mode, member.uid, member.gid, hashlib.sha256(content).hexdigest(), link)


# Names ----------------------------------------------------------------------------------------------------------------


def test_names_are_given_moved_and_taken(kpod: Kpod, registry: Registries) -> None:
    one, two = ok(kpod, "pull", "-q", kpod.image), ok(kpod, "pull", "-q", registry.reference("layered", "v1"))
    assert ok(kpod, "tag", one, "example.com/a:1", "short") == f"example.com/a:1\n{registry.public.host}/short:latest"
    assert ok(kpod, "tag", two, "example.com/a:1") == "example.com/a:1"
    names = {each["id"]: each["names"] for each in said(kpod, "images", "--json")}
    assert "example.com/a:1" in names[two]
    assert "example.com/a:1" not in names[one]
    assert ok(kpod, "untag", two, "example.com/a:1") == "example.com/a:1"
    assert ok(kpod, "untag", two) == registry.reference("layered", "v1")
    assert two in {each["id"] for each in said(kpod, "images", "--json")}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("tag", "IMAGE", "UPPER"), "lower-case"),
        (("tag", "IMAGE", "a@sha256:" + "0" * 64), "digest"),
        (("tag", "no.such/image", "a"), "not found"),
        (("untag", "IMAGE", "example.com/other:1"), "not found"),
        (("rmi", "no.such/image:1"), "not found"),
        (("history", "no.such/image:1"), "not found"),
        (("push", "IMAGE", "containers-storage:x"), "oci-archive:"),
        (("push", "IMAGE", "example.com/a@sha256:" + "0" * 64), "a name with a tag"),
        (("import", "/nowhere"), "not found"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(kpod: Kpod, words: tuple[str, ...], told: str) -> None:
    ok(kpod, "pull", "-q", kpod.image)
    answer = kpod(*(kpod.image if word == "IMAGE" else word for word in words))
    assert (answer.status, answer.out) == (1, "")
    assert told in answer.err
    assert answer.err.count("\n") == 1


# What images are made of, and take ------------------------------------------------------------------------------------


def test_history_and_tree_agree_with_the_config_and_the_disk(kpod: Kpod, registry: Registries) -> None:
    image = layered()
    ok(kpod, "pull", "-q", registry.reference("layered", "v1"))
    ok(kpod, "pull", "-q", kpod.image)
    steps = said(kpod, "history", "--format", "json", registry.reference("layered", "v1"))
    assert [each["diff_id"] for each in steps] == image.diff_ids[::-1]
    assert {each["created_by"] for each in steps} == {"tests"}
    tree = said(kpod, "tree", "--json", registry.reference("layered", "v1"))
    assert [each["digest"] for each in tree["layers"]] == [layer.digest for layer in image.layers]
    assert [each["shared_with"] for each in tree["layers"]] == [[kpod.image], [], []]
    assert [each["size_bytes"] for each in tree["layers"]] == [on_disk(kpod, each["layer"]) for each in tree["layers"]]
    assert tree["unique_bytes"] + tree["shared_bytes"] == tree["size_bytes"]
    assert "└─" in ok(kpod, "tree", kpod.image)


def on_disk(kpod: Kpod, layer: str) -> int:
    """The content of regular files in a layer's directory, each file once."""
    sizes = {}
    for place, _, names in os.walk(kpod.daemon.root / "layers" / layer):
        for name in names:
            status = os.lstat(os.path.join(place, name))
            if os.path.isfile(os.path.join(place, name)) and not os.path.islink(os.path.join(place, name)):
                sizes[status.st_ino] = status.st_size
    return sum(sizes.values())


def test_usage_agrees_with_a_walk_of_the_disk(kpod: Kpod, registry: Registries) -> None:
    ok(kpod, "pull", "-q", registry.reference("layered", "v1"))
    ok(kpod, "run", "-d", "--name", "writes", kpod.image, "sh", "-c", "head -c 200000 /dev/zero > /data; exec sleep 1000")
    kpod("exec", "writes", "--", "sh", "-c", "while ! [ -s /data ]; do sleep 0.1; done; sync")
    usage = said(kpod, "du", "--json")
    layers = [path.name for path in (kpod.daemon.root / "layers").iterdir() if path.name != "empty"]
    assert usage["layers_bytes"] == sum(on_disk(kpod, layer) for layer in layers)
    sizes = {name: each for each in usage["images"] for name in each["names"]}
    busybox, both = sizes[kpod.image], sizes[registry.reference("layered", "v1")]
    assert busybox["shared_bytes"] == busybox["size_bytes"] == both["shared_bytes"]
    assert both["unique_bytes"] == usage["layers_bytes"] - busybox["size_bytes"]
    assert busybox["containers"] == 1
    [container] = usage["containers"]
    assert (container["image_id"], container["writable_bytes"] >= 200000) == (busybox["id"], True)
    assert "writes" in ok(kpod, "du")
    assert kpod("rm", "-f", "writes").status == 0


def test_prune_takes_what_nobody_needs_and_says_how_much(kpod: Kpod, registry: Registries) -> None:
    ok(kpod, "pull", "-q", registry.reference("layered", "v1"))
    ok(kpod, "run", "-d", "--name", "uses", kpod.image, "sleep", "1000")
    usage = said(kpod, "du", "--json")
    assert said(kpod, "prune", "--json")["images"] == []
    ok(kpod, "untag", registry.reference("layered", "v1"))
    ok(kpod, "untag", kpod.image)
    would = said(kpod, "prune", "--json", "-n")
    assert len(said(kpod, "images", "--json")) == 2
    pruned = said(kpod, "prune", "--json")
    assert {**would, "dry_run": False} == pruned
    assert [each["id"] for each in pruned["images"]] == [layered().id]
    assert pruned["freed_bytes"] == next(each["unique_bytes"] for each in usage["images"] if each["id"] == layered().id)
    assert list(pruned["kept"].values()) == ["used by 1 container"]
    assert said(kpod, "du", "--json")["layers_bytes"] == usage["layers_bytes"] - pruned["freed_bytes"]
    assert kpod("rmi", busybox_image().id).status == 1
    assert kpod("rmi", "-f", busybox_image().id).status == 0
    assert kpod("rm", "-f", "uses").status == 0


# Import ---------------------------------------------------------------------------------------------------------------


def test_an_imported_tar_runs_as_its_changes_say(kpod: Kpod, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(busybox_layer([file("etc/greeting", "hello\n")]))
    changes = ['ENV GREETING="a b" X=1', 'ENTRYPOINT ["sh", "-c"]', 'CMD ["cat /etc/greeting; echo $GREETING; pwd; id -u"]']
    changes += ["WORKDIR /var/log", "USER=1000", "LABEL made=here", "EXPOSE 80 53/udp", "VOLUME /data", "STOPSIGNAL SIGINT"]
    flags = [word for change in changes for word in ("-c", change)]
    image_id = ok(kpod, "import", *flags, "-m", "by hand", tmp_path / "root.tar", "example.com/made:1")
    assert ok(kpod, "run", "--rm", "--pull", "never", "example.com/made:1") == "hello\na b\n/var/log\n1000"
    [step] = said(kpod, "history", "--format", "json", image_id)
    assert (step["created_by"], step["comment"]) == ("kpod import", "by hand")
    config = said(kpod, "inspect", "--config", "example.com/made:1")["config"]
    assert config["Labels"] == {"made": "here"}
    assert config["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert (config["Volumes"], config["StopSignal"], config["User"]) == ({"/data": {}}, "SIGINT", "1000")


def test_a_tar_comes_from_standard_input_compressed_and_without_a_name(kpod: Kpod) -> None:
    tar = subprocess.run(["gzip", "-c"], input=busybox_layer(), capture_output=True, check=True).stdout
    image_id = ok(kpod, "import", "-c", 'CMD ["echo", "works"]', "-", stdin=tar)
    assert ok(kpod, "run", "--rm", "--pull", "never", image_id) == "works"


def test_what_is_no_tar_leaves_nothing(kpod: Kpod, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(b"not a tar at all" * 100)
    assert kpod("import", tmp_path / "root.tar", "example.com/made:1").status == 1
    assert kpod("import", "-c", "RUN true", tmp_path / "root.tar").status == 1
    assert said(kpod, "images", "--json") == []


# Push -----------------------------------------------------------------------------------------------------------------


def test_what_the_registry_has_keeps_its_digest_and_is_not_sent(kpod: Kpod, registry: Registries, tmp_path: Path) -> None:
    ok(kpod, "pull", "-q", registry.reference("layered", "v1"))
    before = blobs(registry.public)
    target = registry.reference("elsewhere", f"from-{tmp_path.name}".lower())
    answer = kpod("push", registry.reference("layered", "v1"), target)
    assert (answer.status, answer.out.strip()) == (0, layered().digest), answer.err
    assert "anew" not in answer.err
    assert set(blobs(registry.public)) - set(before) == set()
    assert json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{target}"))["Digest"] == layered().digest


@pytest.mark.parametrize("compression", ["gzip", "none"])
@pytest.mark.parametrize("form", ["oci", "docker"])
def test_a_push_with_a_password_over_tls_has_the_same_files(
    kpod: Kpod, registry: Registries, tmp_path: Path, form: str, compression: str
) -> None:
    source, private = registry.reference("layered", "v1"), registry.private
    ok(kpod, "pull", "-q", source)
    target = private.reference(f"team/{'d' if kpod.daemon.process else 'a'}", f"{form}-{compression}")
    words = ("push", "--creds", f"{private.username}:{private.password}", "--format", form, "--compression-format", compression)
    answer = kpod(*words, "--digestfile", tmp_path / "digest", source, f"docker://{target}")
    assert answer.status == 0, answer.err
    assert "3 of 3 layers were written anew" in answer.err
    assert (tmp_path / "digest").read_text() == answer.out.strip()
    account = ["--src-tls-verify=false", "--src-creds", f"{private.username}:{private.password}"]
    skopeo("copy", "-q", *account, f"docker://{target}", f"oci:{tmp_path / 'ours'}:x")
    skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{source}", f"oci:{tmp_path / 'theirs'}:x")
    ours, theirs = flattened(tmp_path / "ours"), flattened(tmp_path / "theirs")
    assert {name: ours[name] for name in theirs} == theirs
    assert set(ours) - set(theirs) <= {"a"}  # a directory that a layer used without describing it
    raw = skopeo(
        "inspect", "--raw", "--tls-verify=false", *[word.replace("src-", "") for word in account[1:]], f"docker://{target}"
    )
    assert digest_of(raw.encode()) == answer.out.strip()
    assert ("docker" in json.loads(raw)["mediaType"]) is (form == "docker")


def test_a_second_push_sends_nothing(kpod: Kpod, registry: Registries) -> None:
    private = registry.private
    ok(kpod, "pull", "-q", registry.reference("layered", "v1"))
    target = private.reference(f"twice/{'d' if kpod.daemon.process else 'a'}", "v1")
    words = ("push", "-q", "--creds", f"{private.username}:{private.password}", registry.reference("layered", "v1"), target)
    digest = ok(kpod, *words)
    before = blobs(private)
    assert ok(kpod, *words) == digest
    assert blobs(private) == before


def test_a_wrong_password_and_a_registry_that_is_gone_are_told(kpod: Kpod, registry: Registries) -> None:
    ok(kpod, "pull", "-q", kpod.image)
    answer = kpod("push", "--creds", "alice:wrong", kpod.image, registry.private.reference("x"))
    assert (answer.status, answer.out) == (1, "")
    assert "wrong" not in answer.err
    assert "refuses the credentials" in answer.err
    assert kpod("push", kpod.image, "127.0.0.1:1/x:y").status == 1


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive"])
def test_a_push_to_a_file_is_read_by_skopeo(kpod: Kpod, tmp_path: Path, transport: str) -> None:
    ok(kpod, "pull", "-q", kpod.image)
    name = "v9" if transport == "oci" else "example.com/named:v9"
    ok(kpod, "push", kpod.image, f"{transport}:{tmp_path / 'out'}:{name}")
    found = json.loads(skopeo("inspect", "--config", f"{transport}:{tmp_path / 'out'}:{name}"))
    assert found["config"]["Cmd"] == ["sh"]


# Remote ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["layered", "many"])
def test_a_remote_image_is_told_as_skopeo_tells_it(kpod: Kpod, registry: Registries, name: str) -> None:
    target = f"docker://{registry.reference(name, 'v1')}"
    theirs = json.loads(skopeo("inspect", "--tls-verify=false", target))
    ours = said(kpod, "inspect", target)
    assert {key: ours[key] for key in theirs if key in ours} == {key: theirs[key] for key in theirs if key in ours}
    assert set(theirs) - set(ours) == set()
    assert kpod("inspect", "--raw", target).out == skopeo("inspect", "--raw", "--tls-verify=false", target)
    assert said(kpod, "inspect", "--remote", "--config", registry.reference(name, "v1")) == json.loads(layered().config)
    assert said(kpod, "images", "--json") == []


def test_a_remote_image_of_another_platform_and_behind_a_password(kpod: Kpod, registry: Registries) -> None:
    found = said(kpod, "inspect", "--no-tags", "--platform", "linux/arm64", f"docker://{registry.reference('many', 'v1')}")
    assert (found["Architecture"], found["RepoTags"]) == ("arm64", [])
    push(registry.private, "secret", "v1", busybox_image())
    target = f"docker://{registry.private.reference('secret', 'v1')}"
    assert kpod("inspect", target).status == 1
    account = f"{registry.private.username}:{registry.private.password}"
    assert said(kpod, "inspect", "--creds", account, target)["RepoTags"] == ["v1"]


def test_local_documents_are_exact_bytes(kpod: Kpod, registry: Registries) -> None:
    ok(kpod, "pull", "-q", registry.reference("layered", "v1"))
    assert kpod("inspect", "--raw", registry.reference("layered", "v1")).out.encode() == layered().manifest
    assert kpod("inspect", "--raw", "--config", registry.reference("layered", "v1")).out.encode() == layered().config
