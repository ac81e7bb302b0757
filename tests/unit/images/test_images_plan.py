"""images.commit.plan: layers of a manifest matched with the config's diff ids."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.image_store import planned
from support.images import Layer, digest_of, file, make_image

from criollo.errors import Invalid, Unsupported
from criollo.images.commit import plan
from criollo.oci.digest import Digest, chain_ids
from criollo.oci.image_spec import Manifest, decode_manifest


@given(st.lists(st.text("ab", max_size=3), max_size=6))
def test_each_layer_has_its_descriptor_its_diff_id_and_those_below(contents: list[str]) -> None:
    image = make_image([[file("f", content)] for content in contents])
    blobs = planned(image)
    assert [str(blob.descriptor.digest) for blob in blobs] == [layer.digest for layer in image.layers]
    assert [str(blob.diff_id) for blob in blobs] == image.diff_ids
    assert [blob.name for blob in blobs] == [chain.hex[:32] for chain in chain_ids([Digest(each) for each in image.diff_ids])]
    assert [list(blob.below) for blob in blobs] == [[blob.name for blob in blobs[:at]] for at in range(len(blobs))]


def test_the_same_layer_on_another_base_is_another_layer() -> None:
    top = [file("top")]
    one, other = planned(make_image([[file("a")], top])), planned(make_image([[file("b")], top]))
    assert one[1].descriptor == other[1].descriptor
    assert one[1].name != other[1].name


@pytest.mark.parametrize("count", [0, 1, 3])
def test_other_numbers_of_layers_are_refused(count: int) -> None:
    image = make_image([[file("a")], [file("b")]])
    config = json.loads(image.config)
    config["rootfs"]["diff_ids"] = [digest_of(b"x")] * count
    manifest = decode_manifest(image.manifest)
    assert isinstance(manifest, Manifest)
    with pytest.raises(Invalid, match="diff_ids"):
        plan(manifest, json.dumps(config).encode())


@pytest.mark.parametrize("media_type", ["application/octet-stream", "application/octet-stream+encrypted"])
def test_a_layer_of_an_unknown_kind_is_refused(media_type: str) -> None:
    with pytest.raises(Unsupported, match="cannot unpack a layer of type"):
        planned(make_image([Layer(b"", media_type, digest_of(b""))]))
