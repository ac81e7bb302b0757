"""The size of /dev/shm, by annotation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.model.pod import PodConfig
from criollo.pods.shm import parse_quantity, shm_bytes


def config(**annotations: str) -> PodConfig:
    return PodConfig(name="p", uid="u", namespace="n", annotations=annotations)


@pytest.mark.parametrize(
    ("text", "size"), [("1048576", 1 << 20), ("64Mi", 64 << 20), ("1G", 10**9), ("1.5k", 1500), ("0.5Ki", 512), ("1.0001", 2)]
)
def test_a_quantity_is_in_units_of_kubernetes(text: str, size: int) -> None:
    assert parse_quantity(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1MB", "Mi", "1e3", "9999P", "٣", "1Mi\n2"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"shm-size\.crio\.io"):
        parse_quantity(text)


@given(st.text(st.sampled_from("0123456789.kKMGTPi -"), max_size=12))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    try:
        assert 0 < parse_quantity(text) <= 1 << 50
    except Invalid:
        return


def test_the_wish_needs_leave() -> None:
    for key in ("shm-size.crio.io", "io.kubernetes.cri-o.ShmSize"):
        assert shm_bytes(config(**{key: "1Mi"}), ["shm-size.crio.io"], default=7) == 1 << 20
        assert shm_bytes(config(**{key: "1Mi"}), [], default=7) == 7
    assert shm_bytes(config(), ["shm-size.crio.io"], default=7) == 7
