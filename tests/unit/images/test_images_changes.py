"""images.changes: words of a Dockerfile become a config, or an error that shows them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.images.changes import apply_changes
from criollo.oci.image_spec import decode_config


@pytest.mark.parametrize(
    ("change", "config"),
    [
        ("ENV A=b", {"Env": ["A=b"]}),
        ("ENV A=b C=\"d e\" F='g h'", {"Env": ["A=b", "C=d e", "F=g h"]}),
        ("ENV A some words", {"Env": ["A=some words"]}),
        ("env A=", {"Env": ["A="]}),
        ("LABEL a=b c.d/e=f", {"Labels": {"a": "b", "c.d/e": "f"}}),
        ('CMD ["a", "b c"]', {"Cmd": ["a", "b c"]}),
        ("CMD a b", {"Cmd": ["/bin/sh", "-c", "a b"]}),
        ("CMD=a b", {"Cmd": ["/bin/sh", "-c", "a b"]}),
        ("ENTRYPOINT []", {"Entrypoint": []}),
        ("USER 5:6", {"User": "5:6"}),
        ("WORKDIR srv", {"WorkingDir": "/srv"}),
        (
            "EXPOSE 80 53/UDP 8000-8002",
            {"ExposedPorts": {port: {} for port in ("80/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp")}},
        ),
        ('VOLUME ["/a b"]', {"Volumes": {"/a b": {}}}),
        ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
        ("STOPSIGNAL sigusr1", {"StopSignal": "SIGUSR1"}),
        ("STOPSIGNAL 9", {"StopSignal": "9"}),
    ],
)
def test_a_word_sets_its_part_of_the_config(change: str, config: dict[str, object]) -> None:
    assert apply_changes([change]) == config


def test_later_words_add_or_win() -> None:
    made = apply_changes(["ENV A=1 B=2", "ENV A=3", "WORKDIR /a", "WORKDIR b", "EXPOSE 1", "EXPOSE 2", "CMD x", 'CMD ["y"]'])
    assert made == {
        "Env": ["B=2", "A=3"],
        "WorkingDir": "/a/b",
        "ExposedPorts": {"1/tcp": {}, "2/tcp": {}},
        "Cmd": ["y"],
    }


@pytest.mark.parametrize(
    "change",
    [
        *(
            "",
            "ENV",
            "RUN true",
            "FROM x",
            "ENV =b",
            "ENV A",
            'ENV A="b',
            "LABEL a",
            "CMD",
            "CMD [1]",
            "CMD [",
            "USER",
            "USER a b",
        ),
        *("WORKDIR", "EXPOSE", "EXPOSE 0", "EXPOSE 70000", "EXPOSE 80/icmp", "EXPOSE 1-65535", "VOLUME a", "VOLUME []"),
        *("STOPSIGNAL", "STOPSIGNAL no signal", "ENV A=\0", "ENV A=\ud800", 'CMD ["\\ud800"]'),
    ],
)
def test_what_a_word_does_not_take_is_shown(change: str) -> None:
    with pytest.raises(Invalid, match="--change"):
        apply_changes([change])


@given(
    st.lists(
        st.text() | st.sampled_from(["ENV ", "CMD ", "EXPOSE ", "VOLUME "]).flatmap(lambda w: st.text().map(lambda t: w + t))
    )
)
def test_whatever_is_taken_is_a_config_that_we_read(changes: list[str]) -> None:
    try:
        made = apply_changes(changes)
    except Invalid:
        return
    decode_config(json.dumps({"config": made, "rootfs": {"type": "layers", "diff_ids": []}}, ensure_ascii=False).encode())
