"""A containerd of the tests' own: its root, state and socket below one directory, ended by its pid."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from support.daemon import wait_for
from support.images import Image, Index, write_oci_archive

_LEFT_OUT = (
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
    *(f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")),
)


class Containerd:
    """A containerd; `root` is what images are taken from."""

    def __init__(self, place: Path) -> None:
        self.place, self.root, self.socket = place, place / "root", place / "c.sock"
        left_out = ", ".join(f'"{name}"' for name in _LEFT_OUT)
        (place / "config.toml").write_text(
            f'version = 2\nroot = "{self.root}"\nstate = "{place}/state"\ndisabled_plugins = [{left_out}]\n'
            f'[grpc]\naddress = "{self.socket}"\n'
        )
        with (place / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["containerd", "-c", str(place / "config.toml")], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)

    def answers(self) -> bool:
        probe = ["ctr", "-a", str(self.socket), "version"]
        return subprocess.run(probe, capture_output=True, timeout=60, check=False).returncode == 0

    def ctr(self, *arguments: str) -> str:
        done = subprocess.run(
            ["ctr", "-a", str(self.socket), *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def load(self, images: Mapping[str, Image | Index], *options: str, namespace: str = "k8s.io") -> None:
        """Import images by their names, without unpacking them."""
        archive = write_oci_archive(self.place / "archive.tar", images)
        self.ctr("-n", namespace, "image", "import", "--no-unpack", *options, str(archive))


@contextlib.contextmanager
def running_containerd() -> Iterator[Containerd]:
    with tempfile.TemporaryDirectory(prefix="ctd-") as directory:  # short: the path of a socket has few bytes
        containerd = Containerd(Path(directory))
        try:
            wait_for(containerd.answers)
            yield containerd
        finally:
            containerd.stop()
