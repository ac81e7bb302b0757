import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid, Unsupported
from criollo.oci import image_spec as spec
from criollo.oci.digest import Digest
from criollo.oci.image_spec import check_layers, compression_of, decode_config, decode_manifest

SHA = str(Digest.of(b"x"))
LAYER = {"mediaType": spec.OCI_LAYER + "+gzip", "digest": SHA, "size": 3}
CONFIG = {"mediaType": spec.OCI_CONFIG, "digest": SHA, "size": 5}
MANIFEST = {"schemaVersion": 2, "mediaType": spec.OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
ENTRY = {"mediaType": spec.OCI_MANIFEST, "digest": SHA, "size": 7, "platform": {"os": "linux", "architecture": "x86_64"}}
INDEX = {"schemaVersion": 2, "mediaType": spec.OCI_INDEX, "manifests": [ENTRY]}
IMAGE = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [SHA]}}


def raw(value, **changed):
    return json.dumps({**value, **changed}).encode()


@pytest.mark.parametrize("media_type", [spec.OCI_MANIFEST, "", "application/json", spec.OCI_MANIFEST + "; charset=utf-8"])
def test_an_oci_manifest_is_read(media_type):
    manifest = decode_manifest(raw(MANIFEST), media_type)
    assert isinstance(manifest, spec.Manifest)
    assert manifest.media_type == spec.OCI_MANIFEST
    assert (manifest.config.digest, manifest.config.size) == (SHA, 5)
    assert [layer.media_type for layer in manifest.layers] == [LAYER["mediaType"]]


def test_a_docker_manifest_and_list_are_read():
    config = {**CONFIG, "mediaType": spec.DOCKER_CONFIG}
    manifest = decode_manifest(raw(MANIFEST, mediaType=spec.DOCKER_MANIFEST, config=config), spec.DOCKER_MANIFEST)
    index = decode_manifest(raw(INDEX, mediaType=spec.DOCKER_LIST), spec.DOCKER_LIST)
    assert manifest.media_type == spec.DOCKER_MANIFEST
    assert index.media_type == spec.DOCKER_LIST


def test_platforms_of_an_index_are_normal():
    index = decode_manifest(raw(INDEX), spec.OCI_INDEX)
    assert str(index.manifests[0].platform) == "linux/amd64"


@pytest.mark.parametrize("platform", [None, {}, {"os": "", "architecture": ""}])
def test_an_index_entry_may_lack_a_platform(platform):
    assert decode_manifest(raw(INDEX, manifests=[{**ENTRY, "platform": platform}])).manifests[0].platform is None


def without(value, key):
    return {name: member for name, member in value.items() if name != key}


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (without(MANIFEST, "schemaVersion"), "schemaVersion"),
        ({**MANIFEST, "schemaVersion": "2"}, "schemaVersion"),
        ({**MANIFEST, "schemaVersion": 2.0}, "schemaVersion"),
        ({**MANIFEST, "schemaVersion": True}, "schemaVersion"),
        ({**MANIFEST, "mediaType": 7}, "mediaType"),
        ({**MANIFEST, "manifests": []}, "both a manifest and an index"),
        ({**INDEX, "config": CONFIG}, "both a manifest and an index"),
        ({**INDEX, "layers": None}, "both a manifest and an index"),
        ({**INDEX, "mediaType": spec.OCI_MANIFEST}, "a document of type"),
        ({**MANIFEST, "mediaType": spec.OCI_INDEX}, "a document of type"),
        ({**MANIFEST, "Layers": []}, "Layers"),
        ({**MANIFEST, "mediatype": "x"}, "mediatype"),
        ({**MANIFEST, "config": {**CONFIG, "Digest": SHA}}, "Digest"),
        (without(MANIFEST, "config"), "manifest.config"),
        ({**MANIFEST, "config": [CONFIG]}, "manifest.config"),
        (without(MANIFEST, "layers"), "manifest.layers"),
        ({**MANIFEST, "layers": None}, "manifest.layers"),
        ({**MANIFEST, "layers": {}}, "manifest.layers"),
        ({**MANIFEST, "layers": [7]}, r"manifest.layers\[0\]"),
        ({**MANIFEST, "layers": [LAYER] * 1001}, "at most 1000"),
        ({**INDEX, "manifests": [ENTRY] * 1001}, "at most 1000"),
        ({**MANIFEST, "layers": [LAYER, {**LAYER, "size": -1}]}, r"manifest.layers\[1\].size"),
        ({**MANIFEST, "layers": [{**LAYER, "size": 1.5}]}, r"manifest.layers\[0\].size"),
        ({**MANIFEST, "layers": [{**LAYER, "size": 2**63}]}, r"manifest.layers\[0\].size"),
        ({**MANIFEST, "layers": [{**LAYER, "size": "3"}]}, r"manifest.layers\[0\].size"),
        ({**MANIFEST, "layers": [{**LAYER, "size": True}]}, r"manifest.layers\[0\].size"),
        ({**MANIFEST, "layers": [without(LAYER, "digest")]}, "digest"),
        ({**MANIFEST, "layers": [{**LAYER, "digest": "sha256:../../canary"}]}, r"manifest.layers\[0\].digest"),
        ({**MANIFEST, "layers": [{**LAYER, "digest": "md5:" + "0" * 32}]}, r"manifest.layers\[0\].digest"),
        ({**INDEX, "manifests": [{**ENTRY, "platform": 7}]}, r"manifests\[0\].platform"),
        ({**INDEX, "manifests": [{**ENTRY, "platform": {"os": 7, "architecture": "x"}}]}, r"platform.os"),
        ({**MANIFEST, "annotations": {"a": 7}}, "annotations"),
    ],
)
def test_a_malformed_manifest_is_refused_by_its_field(document, field):
    with pytest.raises(Invalid, match=field):
        decode_manifest(json.dumps(document).encode())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b'{"schemaVersion":2,"schemaVersion":2}',
        b'{"schemaVersion":NaN}',
        b'{"schemaVersion":2}x',
        b'\xef\xbb\xbf{"schemaVersion":2}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":' + b"9" * 10_000 + b"}",
        b'{"a":' * 50_000,
        b'{"a":' * 200 + b"1" + b"}" * 200,
        b'{"a":' + b"[" * 100_000,
        json.dumps({"schemaVersion": 2}).encode().decode().encode("utf-16"),
        b'{"a":"' + b"x" * (4 << 20) + b'"}',
    ],
)
def test_what_is_no_single_json_object_is_refused(text):
    with pytest.raises(Invalid):
        decode_manifest(text)


def test_a_type_that_contradicts_its_source_is_refused():
    with pytest.raises(Invalid, match="mediaType"):
        decode_manifest(raw(MANIFEST), spec.DOCKER_MANIFEST)
    with pytest.raises(Invalid):
        decode_manifest(raw(without(MANIFEST, "mediaType")), spec.OCI_INDEX)


@pytest.mark.parametrize(
    ("document", "media_type"),
    [({"schemaVersion": 1}, ""), (MANIFEST, spec.DOCKER_SCHEMA1), (MANIFEST, spec.DOCKER_SCHEMA1_SIGNED)],
)
def test_schema_1_says_how_to_convert(document, media_type):
    with pytest.raises(Unsupported, match="skopeo copy"):
        decode_manifest(json.dumps(document).encode(), media_type)


def test_an_artifact_is_no_image():
    with pytest.raises(spec.NotAnImage, match=r"application/vnd\.example"):
        decode_manifest(raw(MANIFEST, config={**CONFIG, "mediaType": "application/vnd.example"}))


def test_an_unknown_document_type_is_unsupported():
    with pytest.raises(Unsupported, match="text/html"):
        decode_manifest(raw(without(MANIFEST, "mediaType")), "text/html")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.just(SHA),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "schemaVersion",
                    "mediaType",
                    "config",
                    "layers",
                    "manifests",
                    "digest",
                    "size",
                    "platform",
                    "rootfs",
                    "diff_ids",
                    "Env",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.fixed_dictionaries({}, optional={key: JSON for key in (*MANIFEST, *IMAGE, "manifests", "annotations")}))
def test_any_json_is_read_or_refused_by_name(value):
    text = json.dumps(value).encode()
    for decode in (decode_manifest, decode_config):
        with contextlib.suppress(Invalid, Unsupported):
            decode(text)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_by_name(text):
    for decode in (decode_manifest, decode_config):
        with pytest.raises((Invalid, Unsupported)):
            decode(text)


def test_nulls_of_docker_count_as_absent():
    empty = {"Entrypoint": None, "Cmd": None, "Volumes": None, "Env": None, "Labels": None, "ExposedPorts": None, "User": None}
    config = decode_config(raw(IMAGE, config=empty, created=None, history=None))
    assert config.config == spec.RunConfig()
    assert decode_config(raw(IMAGE, config=None)).config == spec.RunConfig()


def test_a_config_is_read():
    run = {
        **{"User": "1000:1000", "Env": ["A=b"], "Entrypoint": ["/init"], "Cmd": ["sh", "-c"], "WorkingDir": "/w"},
        **{"StopSignal": "SIGUSR1", "Volumes": {"/data": {}}, "Labels": {"k": "v"}, "ExposedPorts": {"80/tcp": {}}},
    }
    config = decode_config(raw(IMAGE, config=run))
    assert config.config.user == "1000:1000"
    assert config.config.env == ("A=b",)
    assert config.config.entrypoint == ("/init",)
    assert config.config.cmd == ("sh", "-c")
    assert config.config.working_dir == "/w"
    assert config.config.stop_signal == "SIGUSR1"
    assert list(config.config.volumes) == ["/data"]
    assert config.config.labels == {"k": "v"}
    assert config.rootfs.diff_ids == (SHA,)
    assert str(config.platform) == "linux/amd64"


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"rootfs": None}, "rootfs"),
        ({"rootfs": {"type": "tree", "diff_ids": []}}, "rootfs.type"),
        ({"rootfs": {"diff_ids": ["sha256:x"]}}, r"rootfs.diff_ids\[0\]"),
        ({"rootfs": {"diff_ids": [SHA] * 1001}}, "at most 1000"),
        ({"rootfs": {"diff_ids": [], "Diff_IDs": []}}, "Diff_IDs"),
        ({"config": []}, "config"),
        ({"config": {"User": 0}}, "config.User"),
        ({"config": {"Env": "A=b"}}, "config.Env"),
        ({"config": {"Env": [None]}}, r"config.Env\[0\]"),
        ({"config": {"Cmd": ["a\0b"]}}, "config.Cmd"),
        ({"config": {"Volumes": ["/a"]}}, "config.Volumes"),
        ({"config": {"env": ["A=b"]}}, "env"),
        ({"config": {"Labels": {"a": 1}}}, "Labels"),
        ({"os": 7}, "os"),
    ],
)
def test_a_malformed_config_is_refused_by_its_field(changed, field):
    with pytest.raises(Invalid, match=field):
        decode_config(raw(IMAGE, **changed))


def test_layers_and_diff_ids_must_be_as_many():
    manifest = decode_manifest(raw(MANIFEST))
    check_layers(manifest, decode_config(raw(IMAGE)))
    with pytest.raises(Invalid, match="one for each layer"):
        check_layers(manifest, decode_config(raw(IMAGE, rootfs={"diff_ids": []})))


def test_a_layer_without_end_is_refused():
    for size, fits in [(spec.MAX_BLOB_BYTES, True), (spec.MAX_BLOB_BYTES + 1, False)]:
        manifest = decode_manifest(raw(MANIFEST, layers=[{**LAYER, "size": size}]))
        with contextlib.nullcontext() if fits else pytest.raises(Invalid, match=r"layers\[0\].size"):
            check_layers(manifest, decode_config(raw(IMAGE)))


@pytest.mark.parametrize(
    ("media_type", "compression"),
    [
        (spec.OCI_LAYER, "none"),
        (spec.OCI_LAYER + "+gzip", "gzip"),
        (spec.OCI_LAYER + "+zstd", "zstd"),
        (spec.OCI_FOREIGN_LAYER + "+gzip", "gzip"),
        (spec.DOCKER_LAYER, "none"),
        (spec.DOCKER_LAYER + ".gzip", "gzip"),
        (spec.DOCKER_FOREIGN_LAYER + ".gzip", "gzip"),
    ],
)
def test_layer_types_name_their_compression(media_type, compression):
    assert compression_of(media_type) == compression


@pytest.mark.parametrize(
    "media_type", ["", "application/octet-stream", spec.OCI_LAYER + "+xz", spec.OCI_LAYER + "+gzip+encrypted"]
)
def test_other_layer_types_are_unsupported(media_type):
    with pytest.raises(Unsupported):
        compression_of(media_type)


def test_foreign_layers_are_marked():
    foreign = decode_manifest(
        raw(MANIFEST, layers=[{**LAYER, "mediaType": spec.DOCKER_FOREIGN_LAYER + ".gzip", "urls": ["http://x/"]}])
    )
    assert foreign.layers[0].is_foreign
    assert not decode_manifest(raw(MANIFEST)).layers[0].is_foreign
