"""Other daemons to pull beside: another containerd than Debian's, and a CRI-O; their programs are the caller's.

A peer's name says what it is (`containerd-2.3.4-tuned`, `cri-o-1.37.0`); its directory, cgroup and bridge are called so too.
Only pulls are compared: whether a peer's pods start with the same runtime is tried once and told.
"""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cribench
import daemons
from daemons import Running
from place import Place

TESTS = ("pull", "present", "latency")
STOCK, TUNED, CRIO = "containerd", "tuned containerd", "cri-o"  # kinds, of which different things are wanted
UNPACKS = 3  # layers that a tuned containerd unpacks at once, as many as it fetches


class Peer(NamedTuple):
    """A daemon to compare with, not yet started."""

    name: str
    kind: str
    program: Path

    @contextlib.contextmanager
    def started(self, place: Place, registry: str) -> Iterator[Running]:
        """Run it until the block ends."""
        start: Callable[[Place, str, Peer], contextlib.AbstractContextManager[Running]] = (
            _crio if self.kind == CRIO else _containerd
        )
        with start(place, registry, self) as running:
            yield running


def given(containerd: Path | None, *, tuned: bool, crio: Path | None) -> list[Peer]:
    """The peers of the command line.

    Raises:
        SystemExit: a program does not exist or does not tell its version.
    """
    found = []
    if tuned and not containerd:
        raise SystemExit("bench: --tuned says how to run the containerd of --containerd: give its path")
    if containerd:
        name = f"containerd-{_version(containerd)}"
        found.append(Peer(f"{name}-tuned", TUNED, containerd) if tuned else Peer(name, STOCK, containerd))
    if crio:
        found.append(Peer(f"cri-o-{_version(crio)}", CRIO, crio))
    return found


def _version(program: Path) -> str:
    try:
        shown = subprocess.run([program.absolute(), "--version"], capture_output=True, text=True, timeout=30).stdout
    except OSError as error:
        raise SystemExit(f"bench: cannot run {program}: {error.strerror}") from error
    match = re.search(r"(?<!\d)\d+\.\d+\.\d+[\w.-]*", shown)
    if not match:
        raise SystemExit(f"bench: cannot use {program}: it does not tell its version to --version")
    return match[0]


@contextlib.contextmanager
def _containerd(place: Place, registry: str, peer: Peer) -> Iterator[Running]:
    """Stock is Go's gzip and one layer after another; tuned is igzip, which containerd takes by itself where it finds it."""
    settings, environment = "", dict(os.environ)
    environment["PATH"] = f"{peer.program.absolute().parent}:{environment['PATH']}"  # its shim
    if peer.kind == TUNED:
        if not shutil.which("igzip"):
            raise SystemExit("bench: a tuned containerd needs igzip: install isal")
        settings = f'[plugins."io.containerd.transfer.v1.local"]\nmax_concurrent_unpacks = {UNPACKS}\n'
    else:
        environment["CONTAINERD_DISABLE_IGZIP"] = "1"
    argv = [str(peer.program.absolute())]
    with daemons.containerd(place, registry, peer.name, argv=argv, settings=settings, environment=environment) as running:
        yield running


@contextlib.contextmanager
def _crio(place: Place, registry: str, peer: Peer) -> Iterator[Running]:
    """CRI-O with Debian's conmon and crun, and the pinns beside it."""
    run, root = place.run / peer.name, place.disk / peer.name
    network = daemons.write_network(place, peer.name)
    daemons.write_trust(run, registry)
    (root / "big").mkdir()
    more = {
        "crio": {
            "root": f"{root}/root",
            "runroot": f"{run}/storage",
            "storage_driver": "overlay",
            "version_file": f"{run}/version",
            "clean_shutdown_file": f"{run}/clean",
        },
        "crio.runtime": {
            "pinns_path": f"{peer.program.absolute().parent}/pinns",
            "irqbalance_config_restore_file": "disable",
            "default_runtime": "crun",
        },
        "crio.runtime.runtimes.crun": {
            "runtime_path": shutil.which("crun"),
            "monitor_path": shutil.which("conmon"),
            "monitor_cgroup": "pod",
        },
        "crio.image": {"pause_image": f"{registry}/pause:gzip", "big_files_temporary_dir": f"{root}/big"},
        "crio.nri": {"enable_nri": False},
    }
    conf = daemons.write_crio_conf(run, network, more)
    # Its cache of blobs has a fixed place for root: a tmpfs that only this process sees
    hidden = ["unshare", "--mount", "--propagation", "slave", "sh", "-c"]
    hidden += ['mkdir -p "$0" && mount -t tmpfs criollo-bench "$0" && exec "$@"', "/var/lib/containers"]
    argv = [*hidden, str(peer.program.absolute()), "-c", str(conf), "-d", ""]
    argv += ["--registries-conf", str(run / "registries.conf")]  # of the environment it takes only the directory
    with daemons.in_cgroup(place, peer.name, argv, daemons.trusting(run)) as process:
        yield daemons.answering(place, peer.name, run / "crio.sock", process)


async def try_pod(running: Running, words: list[str]) -> str:
    """Start and remove one pod; returns why that is not possible, or nothing. `words` are cribench's for every test."""
    options = cribench.arguments(["--socket", str(running.socket), *words])
    daemon = cribench.Daemon(running.name, (str(running.socket), None, None), options, cribench.load_stubs(options.stubs))
    try:
        if not await daemon.find_image(options.image):
            await daemon.pull(options.image)
            await daemon.find_image(options.image)
        try:
            pod, _, _ = await daemon.start_pod()
            await daemon.stop_pod(pod)
        except daemon.error as error:
            return str(error.details())
        except RuntimeError as error:
            return str(error)
    finally:
        await daemon.clean()
        await daemon.channel.close()
    return ""
