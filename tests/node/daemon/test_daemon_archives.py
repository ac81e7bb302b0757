"""Images as files, through the HTTP face: loaded from what others wrote, saved for others, damaged and hostile ones."""

import gzip
import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import zstandard
from support import leaks
from support.bad_registry import BadRegistry, run_bad_registry
from support.cri import pb
from support.daemon import Daemon, running_daemon, wait_for
from support.image_node import (
    Gate,
    images,
    layers,
    no_images_left,
    nothing_left,
    pull,
    pull_request,
    registries_conf,
    remove,
    status,
)
from support.images import (
    OCI_INDEX,
    Entry,
    Image,
    busybox_image,
    busybox_layer,
    char_device,
    digest_of,
    directory,
    fifo,
    file,
    hardlink,
    make_image,
    make_index,
    opaque,
    symlink,
    tar_of,
    whiteout,
    write_docker_archive,
    write_oci_archive,
    write_oci_layout,
)
from support.registry import Registry

pytestmark = pytest.mark.node

NAME = "example.com/team/app:v1"
FORMATS = ("oci-archive", "docker-archive", "oci-dir")
TRANSPORT = {"oci-archive": "oci-archive", "docker-archive": "docker-archive", "oci-dir": "oci"}  # as skopeo calls them


@pytest.fixture(scope="module")
def counting() -> Iterator[BadRegistry]:
    with run_bad_registry() as running:
        yield running


@pytest.fixture(scope="module")
def daemon(registry: Registry, counting: BadRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    before = leaks.snapshot()
    place = Path(tmp_path_factory.mktemp("node"))
    with running_daemon(place, registries=registries_conf(registry, counting)) as running:
        pull(running, registry.reference("busybox"))
        remove(running, registry.reference("busybox"))
        yield running
    assert leaks.leaked(before) == {}


@pytest.fixture(autouse=True)
def store_is_empty_again(daemon: Daemon) -> Iterator[None]:
    with no_images_left(daemon):
        yield


class _Http(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(daemon: Daemon, method: str, path: str, query: Sequence[tuple[str, str]] = ()) -> tuple[int, str]:
    connection = _Http(daemon.socket)
    try:
        connection.request(method, f"{path}?{urlencode(query)}")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def load(daemon: Daemon, path: Path, name: str = "") -> list[Any]:
    """The images that a file held, as id and names."""
    code, body = ask(daemon, "POST", "/images/load", [("path", str(path)), *([("name", name)] if name else [])])
    assert code == 200, body
    return list(json.loads(body)["images"])


def not_loaded(daemon: Daemon, path: Path) -> str:
    """What the client is told when nothing can be loaded; nothing is left then."""
    code, body = ask(daemon, "POST", "/images/load", [("path", str(path))])
    assert code in (400, 404, 500, 501), body
    assert "bug" not in body
    assert images(daemon) == []
    nothing_left(daemon)
    return body


def save(daemon: Daemon, path: Path, form: str, *names: str) -> tuple[int, str]:
    query = [("path", str(path)), ("format", form), *(("image", name) for name in names)]
    return ask(daemon, "POST", "/images/save", query)


def saved(daemon: Daemon, path: Path, form: str, *names: str) -> Path:
    code, body = save(daemon, path, form, *names)
    assert code == 200, body
    assert sorted(os.listdir(path.parent)) == [path.name]
    return path


def skopeo(*words: str) -> str:
    done = subprocess.run(["skopeo", *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def runs(daemon: Daemon, image: str) -> None:
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    assert daemon.output(container, "echo", "works") == "works\n"


def small(content: str, **options: Any) -> Image:
    return make_image([[file("content", content)]], **options)


# Load -----------------------------------------------------------------------------------------------------------------


def write(form: str, path: Path, named: Mapping[str, Image]) -> Path:
    writers = {"oci-archive": write_oci_archive, "docker-archive": write_docker_archive, "oci-dir": write_oci_layout}
    return writers[form](path, named)  # type: ignore[operator]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("form", FORMATS)
def test_an_archive_is_loaded_with_its_name(daemon: Daemon, tmp_path: Path, form: str, compression: str) -> None:
    image = small("loaded", compression=compression)
    assert load(daemon, write(form, tmp_path / "image", {NAME: image})) == [{"id": image.id, "names": [NAME]}]
    found = status(daemon, NAME)
    assert (found.id, list(found.repo_tags)) == (image.id, [NAME])
    assert list(found.repo_digests) == ([] if form == "docker-archive" else [f"example.com/team/app@{image.digest}"])
    (layer,) = layers(daemon)
    assert (layer / "content").read_text() == "loaded"


@pytest.mark.parametrize("pack", [gzip.compress, lambda raw: zstandard.ZstdCompressor().compress(raw)], ids=["gzip", "zstd"])
@pytest.mark.parametrize("form", ["oci-archive", "docker-archive"])
def test_a_compressed_archive_is_loaded(daemon: Daemon, tmp_path: Path, form: str, pack: Any) -> None:
    image = small("packed")
    path = write(form, tmp_path / "plain", {NAME: image})
    path.write_bytes(pack(path.read_bytes()))
    assert load(daemon, path) == [{"id": image.id, "names": [NAME]}]


@pytest.mark.parametrize("form", FORMATS)
def test_what_skopeo_wrote_is_loaded_and_runs(daemon: Daemon, registry: Registry, tmp_path: Path, form: str) -> None:
    target = f"{TRANSPORT[form]}:{tmp_path / 'image'}:{NAME}"
    skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{registry.reference('busybox')}", target)
    (loaded,) = load(daemon, tmp_path / "image")
    assert loaded == {"id": busybox_image().id, "names": [NAME]}
    runs(daemon, NAME)


def test_an_image_without_a_name_gets_the_one_that_is_given(daemon: Daemon, tmp_path: Path) -> None:
    image = small("nameless")
    path = write_oci_layout(tmp_path / "image", {"": image})
    assert load(daemon, path) == [{"id": image.id, "names": []}]
    assert load(daemon, path, "team/app:v2") == [{"id": image.id, "names": ["docker.io/team/app:v2"]}]


def test_a_bare_tag_belongs_to_the_name_that_is_given(daemon: Daemon, tmp_path: Path) -> None:
    image = small("tagged")
    path = write_oci_layout(tmp_path / "image", {"v3": image})
    assert load(daemon, path, "example.com/app") == [{"id": image.id, "names": ["example.com/app:v3"]}]


def test_all_images_of_an_archive_are_loaded(daemon: Daemon, tmp_path: Path) -> None:
    named = {f"example.com/app:{tag}": small(tag) for tag in ("a", "b")}
    for form in FORMATS:
        loaded = load(daemon, write(form, tmp_path / form, named))
        assert {each["names"][0]: each["id"] for each in loaded} == {name: image.id for name, image in named.items()}


def test_of_an_index_the_image_for_this_platform_is_loaded(daemon: Daemon, tmp_path: Path) -> None:
    ours, other = small("ours"), small("theirs", platform={"os": "linux", "architecture": "arm64"})
    index = make_index([other, ours], attestation=True)
    (loaded,) = load(daemon, write_oci_layout(tmp_path / "image", {NAME: index}))
    assert loaded["id"] == ours.id
    digests = {f"example.com/team/app@{digest}" for digest in (index.digest, ours.digest)}
    assert set(status(daemon, NAME).repo_digests) == digests


def test_an_archive_for_another_platform_is_told(daemon: Daemon, tmp_path: Path) -> None:
    other = make_index([small("theirs", platform={"os": "linux", "architecture": "arm64"})])
    assert "linux/amd64" in not_loaded(daemon, write_oci_layout(tmp_path / "image", {NAME: other}))


def test_layers_of_a_docker_archive_may_be_links_and_compressed(daemon: Daemon, tmp_path: Path) -> None:
    image = small("linked")
    listed = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["a/layer.tar"]}]
    entries = [
        file("config.json", image.config),
        file("b/layer.tar", image.layers[0].blob),
        symlink("a/layer.tar", "../b/layer.tar"),
        file("manifest.json", json.dumps(listed)),
    ]
    (tmp_path / "image").write_bytes(tar_of(entries))
    assert load(daemon, tmp_path / "image") == [{"id": image.id, "names": [NAME]}]


# Save -----------------------------------------------------------------------------------------------------------------


def odd_image() -> Image:
    """A busybox with everything a layer can have, and what a layer above can take away."""
    odd = [
        file("etc/secret", "s", mode=0o640, uid=12, gid=34),
        file("bin/setuid", "x", mode=0o4755),
        symlink("link", "../nowhere"),
        hardlink("same", "etc/secret"),
        fifo("fifo"),
        char_device("null", 1, 3),
        file("\u00fcml\u00e4ut-" + "long" * 40, "x"),
        Entry("attributed", b"x", xattrs={"user.note": "kept"}),
        file("gone", "x"),
        directory("emptied"),
        file("emptied/gone", "x"),
    ]
    return make_image(
        [busybox_layer(odd), [whiteout("gone"), opaque("emptied"), file("emptied/new", "x")]], config={"Cmd": ["sh"]}
    )


def tree(top: Path) -> dict[str, tuple[object, ...]]:
    """What a layer holds, to be compared."""
    found: dict[str, tuple[object, ...]] = {}
    for place, names, others in os.walk(top):
        for name in [*names, *others]:
            path = os.path.join(place, name)
            entry = os.lstat(path)
            attributes = {
                key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
            }
            content = Path(path).read_bytes() if os.path.isfile(path) and not os.path.islink(path) else b""
            size = entry.st_size if not os.path.isdir(path) else 0
            found[os.path.relpath(path, top)] = (
                *(entry.st_mode, entry.st_uid, entry.st_gid, entry.st_rdev, size),
                *(attributes, content, os.readlink(path) if os.path.islink(path) else ""),
            )
    return dict(sorted(found.items()))


@pytest.mark.parametrize("form", FORMATS)
def test_what_was_saved_is_loaded_as_the_same_trees_and_runs(daemon: Daemon, tmp_path: Path, form: str) -> None:
    image = odd_image()
    load(daemon, write_oci_layout(tmp_path / "original", {NAME: image}))
    before = [tree(path) for path in layers(daemon)]
    (tmp_path / "out").mkdir()
    path = saved(daemon, tmp_path / "out" / "image", form, NAME)
    remove(daemon, image.id)
    nothing_left(daemon)
    (loaded,) = load(daemon, path)
    assert loaded["names"] == [NAME]
    assert sorted(map(repr, (tree(path) for path in layers(daemon)))) == sorted(map(repr, before))
    runs(daemon, NAME)


def test_a_saved_image_has_another_id_once_and_then_keeps_it(daemon: Daemon, tmp_path: Path) -> None:
    image = odd_image()
    load(daemon, write_oci_layout(tmp_path / "original", {NAME: image}))
    ids = []
    for turn in range(2):
        (tmp_path / f"{turn}").mkdir()
        (loaded,) = load(daemon, saved(daemon, tmp_path / f"{turn}/image", "oci-archive", NAME))
        ids.append(loaded["id"])
    assert ids[0] == ids[1] != image.id
    config = json.loads(image.config)
    spec = json.loads(_verbose(daemon, ids[1]))["imageSpec"]
    assert {**spec, "rootfs": None} == {**config, "rootfs": None}


def _verbose(daemon: Daemon, name: str) -> str:
    request = pb.ImageStatusRequest(image=pb.ImageSpec(image=name), verbose=True)
    return str(daemon.cri.call("ImageStatus", request).info["info"])


@pytest.mark.parametrize("form", FORMATS)
def test_skopeo_reads_what_was_saved(daemon: Daemon, registry: Registry, tmp_path: Path, form: str) -> None:
    pull(daemon, registry.reference("busybox"))
    (tmp_path / "out").mkdir()
    path = saved(daemon, tmp_path / "out" / "image", form, registry.reference("busybox"))
    source = f"{TRANSPORT[form]}:{path}"
    inspected = json.loads(skopeo("inspect", "--config", source))
    assert inspected["config"]["Cmd"] == ["sh"]
    target = f"docker://{registry.reference('copied', form)}"
    skopeo("copy", "-q", "--dest-tls-verify=false", source, target)
    assert len(json.loads(skopeo("inspect", "--tls-verify=false", target))["Layers"]) == 1
    remove(daemon, registry.reference("busybox"))
    runs(daemon, pull(daemon, registry.reference("copied", form)))


def test_the_name_that_was_asked_for_is_saved_and_by_id_all(daemon: Daemon, tmp_path: Path) -> None:
    image = small("names")
    for name in ("a.example/app:1", "b.example/app:1"):
        load(daemon, write_oci_layout(tmp_path / name[0], {name: image}))
    for form in FORMATS:
        for asked, expected in (("a.example/app:1", ["a.example/app:1"]), (image.id, ["a.example/app:1", "b.example/app:1"])):
            (tmp_path / f"{form}-{asked[0]}-out").mkdir()
            path = saved(daemon, tmp_path / f"{form}-{asked[0]}-out" / "image", form, asked)
            assert sorted(name for each in load(daemon, path) for name in each["names"]) == expected
            load(daemon, tmp_path / "a")
            load(daemon, tmp_path / "b")


def test_several_images_share_one_file_and_their_layers(daemon: Daemon, tmp_path: Path) -> None:
    base = [file("base", os.urandom(1 << 20).hex())]
    named = {f"example.com/app:{tag}": make_image([base, [file("top", tag)]]) for tag in ("a", "b")}
    load(daemon, write_oci_layout(tmp_path / "original", named))
    for form in FORMATS:
        (tmp_path / form).mkdir()
        path = saved(daemon, tmp_path / form / "image", form, *named)
        assert sorted(each["names"][0] for each in load(daemon, path)) == sorted(named)
        total = sum(found.stat().st_size for found in [path, *path.rglob("*")] if found.is_file())
        assert total < 3 << 20


def test_what_cannot_be_saved_is_told_and_leaves_nothing(daemon: Daemon, tmp_path: Path) -> None:
    load(daemon, write_oci_layout(tmp_path / "original", {NAME: small("x")}))
    out = tmp_path / "out"
    out.mkdir()
    (out / "taken").write_text("mine")
    asked = {
        "missing": (404, save(daemon, out / "image", "oci-archive", "not.here/at:all")),
        "taken": (400, save(daemon, out / "taken", "oci-archive", NAME)),
        "format": (400, save(daemon, out / "image", "rar", NAME)),
        "relative": (400, save(daemon, Path("image"), "oci-archive", NAME)),
        "no image": (400, save(daemon, out / "image", "oci-archive")),
        "no directory": (500, save(daemon, out / "no/such/image" / ("x" * 300), "oci-archive", NAME)),
    }
    assert {name: got[0] for name, (_, got) in asked.items()} == {name: expected for name, (expected, _) in asked.items()}
    assert (out / "taken").read_text() == "mine"
    assert sorted(os.listdir(out)) == ["taken"]


def test_two_saves_to_one_path_do_not_harm_each_other(daemon: Daemon, tmp_path: Path) -> None:
    load(daemon, write_oci_layout(tmp_path / "original", {NAME: make_image([[file("a", os.urandom(1 << 21).hex())]])}))
    out = tmp_path / "out"
    out.mkdir()
    with ThreadPoolExecutor() as pool:
        codes = [each.result()[0] for each in [pool.submit(save, daemon, out / "image", "oci-archive", NAME) for _ in range(3)]]
    assert 200 in codes
    assert os.listdir(out) == ["image"]
    assert load(daemon, out / "image")


# Damaged and hostile --------------------------------------------------------------------------------------------------


def layout_entries(image: Image, *, without: str = "", changed: Mapping[str, bytes] | None = None) -> list[Entry]:
    """The files of an OCI layout as tar entries, one left out or with other content."""
    index = {"mediaType": image.media_type, "digest": image.digest, "size": len(image.manifest)}
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [index]}).encode(),
        **{f"blobs/{digest.replace(':', '/')}": blob for digest, blob in {**image.blobs, image.digest: image.manifest}.items()},
    }
    return [file(name, content) for name, content in {**files, **(changed or {})}.items() if name != without]


def blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def damaged_archives() -> dict[str, bytes]:
    image = small("damaged" * 1000)
    whole = tar_of(layout_entries(image))
    layer, config = blob(image.layers[0].digest), blob(digest_of(image.config))
    return {
        "empty": b"",
        "noise": os.urandom(5000),
        "text": b"this is not an archive\n" * 100,
        "cut": whole[:3000],
        "cut gzip": gzip.compress(whole)[:-30],
        "no files": tar_of([]),
        "other files": tar_of([file("hello", "world")]),
        "layer missing": tar_of(layout_entries(image, without=layer)),
        "config missing": tar_of(layout_entries(image, without=config)),
        "manifest missing": tar_of(layout_entries(image, without=blob(image.digest))),
        "layer changed": tar_of(layout_entries(image, changed={layer: image.layers[0].blob + b"x"})),
        "config changed": tar_of(layout_entries(image, changed={config: image.config + b" "})),
        "manifest changed": tar_of(layout_entries(image, changed={blob(image.digest): image.manifest + b" "})),
        "index is no JSON": tar_of(layout_entries(image, changed={"index.json": b"\xff\xfe"})),
        "index is a manifest": tar_of(layout_entries(image, changed={"index.json": image.manifest})),
        "docker list is no list": tar_of([file("manifest.json", "{}")]),
        "docker list is deep": tar_of([file("manifest.json", "[" * 100_000)]),
        "docker config missing": tar_of([file("manifest.json", '[{"Config":"x","Layers":[]}]')]),
        "docker layers missing": tar_of(
            [file("c", image.config), file("manifest.json", '[{"Config":"c","Layers":["a.tar"]}]')]
        ),
        "docker layers too few": tar_of([file("c", image.config), file("manifest.json", '[{"Config":"c","Layers":[]}]')]),
        "docker name is none": tar_of(
            [file("c", image.config), file("manifest.json", '[{"Config":"c","Layers":[],"RepoTags":["A B"]}]')]
        ),
        "docker path with NUL": tar_of([file("manifest.json", '[{"Config":"a\\u0000b","Layers":[]}]')]),
        "docker path is long": tar_of([file("manifest.json", json.dumps([{"Config": "x" * 9000, "Layers": []}]))]),
        "docker path is no text": tar_of([file("manifest.json", b'[{"Config":"\\ud800","Layers":[]}]')]),
    }


@pytest.mark.parametrize("name", damaged_archives())
def test_a_damaged_archive_is_told_and_leaves_nothing(daemon: Daemon, tmp_path: Path, name: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(damaged_archives()[name])
    assert not_loaded(daemon, path)


def test_what_is_no_file_is_told(daemon: Daemon, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "missing", tmp_path / "fifo", tmp_path / "empty", Path("/dev/zero")):
        assert not_loaded(daemon, path)
    assert ask(daemon, "POST", "/images/load", [("path", "relative")])[0] == 400


def hostile_archives(canary: Path) -> dict[str, bytes]:
    """Archives that try to have a file of the host read or written."""
    image = small("hostile")
    layer, config = blob(image.layers[0].digest), blob(digest_of(image.config))
    up = "../" * 30 + str(canary).lstrip("/")
    docker = '[{"Config":"%s","Layers":["%s"],"RepoTags":["example.com/x:y"]}]'
    return {
        "index is a link": tar_of([symlink("index.json", f"{canary}/index.json")]),
        "index is a link upwards": tar_of([symlink("index.json", f"{up}/index.json")]),
        "blobs is a link": tar_of([*layout_entries(image, without=layer), symlink("blobs2", str(canary)), symlink(layer, up)]),
        "layer is a link": tar_of([*layout_entries(image, without=layer), symlink(layer, f"{canary}/layer")]),
        "config is a link": tar_of([*layout_entries(image, without=config), symlink(config, f"{canary}/config")]),
        "layer is a device": tar_of([*layout_entries(image, without=layer), char_device(layer, 1, 5)]),
        "index is a device": tar_of([char_device("index.json", 1, 5)]),
        "index is a fifo": tar_of([fifo("index.json")]),
        "docker config upwards": tar_of([file("manifest.json", docker % (f"{up}/config", "l")), file("l", "x")]),
        "docker config absolute": tar_of([file("manifest.json", docker % (f"{canary}/config", "l")), file("l", "x")]),
        "docker layer upwards": tar_of(
            [file("c", image.config), file("manifest.json", docker % ("c", f"{up}/layer")), file("l", "x")]
        ),
        "docker config by proc": tar_of([file("manifest.json", docker % ("/proc/self/root/etc/hostname", "l"))]),
        "written upwards": tar_of([file(f"{up}/written", "x"), file(f"{canary}/written", "x")]),
        "written through a link": tar_of([symlink("out", str(canary)), file("out/written", "x"), file("out/layer", "changed")]),
        "hard link out": tar_of([hardlink("index.json", f"{up}/index.json"), file("index.json", "changed")]),
    }


@pytest.mark.parametrize("name", hostile_archives(Path("/x")))
def test_a_hostile_archive_reaches_nothing_of_the_host(daemon: Daemon, tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    image = small("hostile")
    write_oci_layout(canary, {NAME: image})
    (canary / "config").write_bytes(image.config)
    (canary / "layer").write_bytes(image.layers[0].blob)
    before = tree(canary)
    path = tmp_path / "image"
    path.write_bytes(hostile_archives(canary)[name])
    assert not_loaded(daemon, path)
    assert tree(canary) == before


# Progress -------------------------------------------------------------------------------------------------------------


def test_running_pulls_are_told_with_their_layers(daemon: Daemon, counting: BadRegistry) -> None:
    image = make_image([[file("a", "x" * 1000)], [file("b", "y" * 1000)]], compression="none")
    counting.add("watched", "v1", image)
    gate = Gate()
    counting.break_at(f"/v2/watched/blobs/{image.layers[1].digest}", gate.fault())
    pulling = daemon.cri.begin("PullImage", pull_request(counting.reference("watched", "v1")))

    def stages() -> dict[str, str]:
        pulls = json.loads(ask(daemon, "GET", "/pulls")[1])
        assert {each["reference"] for each in pulls} <= {counting.reference("watched", "v1")}
        return {layer["digest"]: layer["stage"] for each in pulls for layer in each["layers"]}

    wait_for(lambda: stages() == {image.layers[0].digest: "here", image.layers[1].digest: "pulling"})
    gate.open()
    assert pulling.result().image_ref == image.id
    assert json.loads(ask(daemon, "GET", "/pulls")[1]) == []
