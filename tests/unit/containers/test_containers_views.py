"""What the builder of specs is told: the image's wishes, where the log goes."""

import pytest

from criollo.containers.views import image_defaults, log_path
from criollo.errors import Invalid
from criollo.model.container import ContainerConfig, ImageSpec
from criollo.model.ids import PodId
from criollo.model.pod import Pod, PodConfig, PodState
from criollo.oci.image_spec import decode_config


def pod(*, asked: str = "", ours: str = "") -> Pod:
    config = PodConfig(name="p", uid="u", namespace="n", log_directory=asked)
    state = PodState.READY
    return Pod(id=PodId("p" * 64), name="p", config=config, handler="", state=state, created_ns=0, log_directory=ours)


def config(path: str = "") -> ContainerConfig:
    return ContainerConfig(name="c", image=ImageSpec(image="i"), log_path=path)


@pytest.mark.parametrize(
    ("directories", "path", "expected"),
    [
        ({"asked": "/var/log/pods/p"}, "c/0.log", "/var/log/pods/p/c/0.log"),
        ({"asked": "/var/log/pods/p/"}, "", "/var/log/pods/p/id.log"),
        ({"ours": "/var/log/criollo/pods/x"}, "c/0.log", "/var/log/criollo/pods/x/c/0.log"),
        ({"ours": "/var/log/criollo/pods/x"}, "", "/var/log/criollo/pods/x/id.log"),
        ({"asked": "/"}, "c.log", "/c.log"),
        ({}, "c.log", ""),
    ],
)
def test_a_log_is_where_the_client_says_else_below_ours(directories: dict[str, str], path: str, expected: str) -> None:
    assert log_path(pod(**directories), config(path), "id") == expected


@pytest.mark.parametrize("path", ["../x", "a/../../x", "..", ".", "/etc/passwd"])
def test_a_log_outside_the_pods_directory_is_refused(path: str) -> None:
    with pytest.raises(Invalid, match="log_path"):
        log_path(pod(asked="/var/log/pods/p"), config(path), "id")


def test_the_images_wishes_are_read() -> None:
    config = b'{"User":"7","StopSignal":"SIGINT","WorkingDir":"/w"}'
    rootfs = b'{"type":"layers","diff_ids":[]}'
    document = b'{"architecture":"amd64","os":"linux","config":%b,"rootfs":%b}' % (config, rootfs)
    found = image_defaults(decode_config(document))
    assert (found.user, found.stop_signal, found.working_dir) == ("7", "SIGINT", "/w")
