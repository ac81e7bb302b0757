"""Measure our daemon beside Debian's containerd, and print the table of docs/performance.md.

Pulls can be measured beside another containerd and a CRI-O as well, in the same turns. All run on this machine, on the same
kind of disk and network, with the same runtime; every test alternates between them (see docs/performance.md for what is
measured and how). Needs root, and about half an hour the first time, when the images are built; ten minutes later on.
Everything made is removed at the end but images and registry, for the next run.
"""

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cribench
import daemons
import images
import peers
import pipeline
import primitives
import streaming
import stubs
import table
from daemons import OURS, THEIRS, Running
from peers import Peer
from place import CGROUP, Busy, Place, prepared

FULL = {"pods": 30, "burst": 24, "rounds": 5, "containers": 50, "crowd": 200, "calls": 200, "execs": 30, "pulls": 5}
QUICK = {"pods": 3, "burst": 8, "rounds": 1, "containers": 10, "crowd": 10, "calls": 20, "execs": 3, "pulls": 1}
STREAMED = {"rounds": 7, "commands": 30, "megabytes": 512}
QUICK_STREAMED = {"rounds": 1, "commands": 3, "megabytes": 64}
APART = ("streaming", "primitives", "pipeline")  # tests that are not cribench's
PACKAGES = ("crun", "conmon", "containerd", "containernetworking-plugins")


def main() -> int:
    options = arguments()
    if os.geteuid() != 0:
        print("bench: run this as root: it mounts disks and runs pods", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.forget:
        for name in ("images", "registry"):
            shutil.rmtree(options.dir / name, ignore_errors=True)
    others = peers.given(options.containerd, tuned=options.tuned, crio=options.crio)
    try:
        with prepared(options.dir, (OURS, THEIRS, *(each.name for each in others))) as place:
            report = measure(place, options, others)
    except Busy as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbench: stopped; everything is removed", file=sys.stderr)
        return 130
    path = options.json or options.dir / "results.json"
    path.write_text(json.dumps(report, indent=1))
    show(report, path)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--dir", type=Path, default=Path("/var/tmp/criollo-bench"), help="where to work; needs some GB of space")
    add("--quick", action="store_true", help="few rounds and the tiny image: does it work, not how fast")
    add(
        "--images",
        default="many,few,many:zstd,few:zstd,tiny",
        help="which to pull, of many, few and tiny, each as gzip or with :zstd; without many, the first tests take the first",
    )
    add("--images-dir", type=Path, help="OCI layouts that bench/make_images.py has made before")
    add("--tests", default=",".join((cribench.TESTS, *APART)), help="some of the default's")
    add("--containerd", type=Path, metavar="PATH", help="another containerd to pull beside, 1.6 or newer, its shim beside it")
    add("--tuned", action="store_true", help="run that one with igzip and layers unpacked at once (2.2 or newer)")
    add("--crio", type=Path, metavar="PATH", help="a CRI-O to pull beside, its pinns beside it")
    add("--forget", action="store_true", help="first remove the images and the registry kept from earlier runs")
    add("--json", type=Path, help="where to write all figures; default: results.json in --dir")
    for name, value in FULL.items():
        add(f"--{name}", type=int, help=f"as cribench's; default {value}")
    options = parser.parse_args()
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.quick:
        options.images = "tiny,tiny:zstd"
    return options


def measure(place: Place, options: argparse.Namespace, others: list[Peer]) -> dict[str, Any]:
    """All tests; returns the report: machine, versions, loads, rows of cribench, primitives."""
    asked = options.tests.split(",")
    begin = datetime.datetime.now(datetime.UTC)
    stubs.generate(place.stubs)
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(daemons.registry(place))
        images.serve(place, host, sorted({*pictures(options), "tiny:gzip", "pause:gzip"}), options.images_dir)
        pair = [stack.enter_context(start(place, host)) for start in (daemons.ours, daemons.theirs)]
        stack.enter_context(swept(place, pair))
        words = common_words(place, host)
        report: dict[str, Any] = {"results": []}
        wide = [test for test in asked if others and test in peers.TESTS]
        if tests := [test for test in asked if test not in (*APART, *wide)]:
            report = client(place, pair, [*words, *test_words(options, host, tests)])
        if others:
            wider = [*words, *test_words(options, host, wide)] if wide else []
            more = beside(place, host, (pair, others), words, wider)
            report["results"] += more.pop("results")
            report |= {key: report.get(key, {}) | found for key, found in more.items() if isinstance(found, dict)}
        if "streaming" in asked:
            print("bench: streams", flush=True)
            stream(place, pair, words, report, QUICK_STREAMED if options.quick else STREAMED)
        if "primitives" in asked:
            print("bench: starts beside bare ones", flush=True)
            report["primitives"] = asyncio.run(primitives.compare(place, pair[0], words, 3 * options.pods))
        if "pipeline" in asked:
            print("bench: bare unpacking", flush=True)
            what = pictures(options)
            found = pipeline.compare(place, pair[0], words, host=host, pictures=what, rounds=options.pulls)
            report["results"] += asyncio.run(found).table()
            report["pipeline"] = {picture: pipeline.program(picture) for picture in what}
    return (
        machine()
        | {
            "begin": begin.isoformat(timespec="seconds"),
            "containers": options.containers,
            "pulled": pictures(options)[0].partition(":")[0],
        }
        | report
    )


def beside(
    place: Place, host: str, daemons: tuple[list[Running], list[Peer]], words: list[str], wider: list[str]
) -> dict[str, Any]:
    """Run the tests of pulls (cribench's arguments `wider`) with the peers in the same turns; try a pod on each peer."""
    pair, others = daemons
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(each.started(place, host)) for each in others]
        stack.enter_context(swept(place, started))
        pods = [asyncio.run(peers.try_pod(each, words)) for each in started]
        report = client(place, [*pair, *started], wider) if wider else {"results": []}
    tried = {peer.name: {"kind": peer.kind, "pod": pod} for peer, pod in zip(others, pods, strict=True)}
    return report | {"peers": tried}


def stream(place: Place, pair: list[Running], words: list[str], report: dict[str, Any], counts: dict[str, int]) -> None:
    """Add the figures of streams to the report."""
    crun = [str(shutil.which("crun")), f"--root={place.run / OURS}/crun"]
    before = os.getloadavg()[0]
    places = [(each.name, str(each.socket), each.pid) for each in pair]
    report["results"] += asyncio.run(streaming.compare(places, words, crun, counts)).table()
    report.setdefault("loads", {})["streaming"] = [before, os.getloadavg()[0]]


def common_words(place: Place, host: str) -> list[str]:
    """Arguments of cribench that every test has."""
    words = ["--stubs", place.stubs, "--image", f"{host}/tiny:gzip", "--logs", place.run / "pods", "--cgroup-parent", CGROUP]
    return [str(word) for word in words]


def test_words(options: argparse.Namespace, host: str, tests: list[str]) -> list[str]:
    """Arguments of cribench that say what to measure."""
    first, *others = pictures(options)
    pulls = [f"{host}/{first}", *(f"pull {each}={host}/{each}" for each in others)]
    words = ["--tests", ",".join(tests), "--concurrency", "8", "--pull-image", ",".join(pulls)]
    for name in FULL:
        words += [f"--{name}", str(getattr(options, name))]
    return words


def pictures(options: argparse.Namespace) -> list[str]:
    """What the pull tests pull, in order: the first is that of all other tests about pulls. Tiny only where it is alone."""
    found = [images.picture(word) for word in options.images.split(",")]
    return sorted((each for each in found if not each.startswith("tiny")), key=lambda each: each != "many:gzip") or found


def client(place: Place, running: list[Running], words: list[str]) -> dict[str, Any]:
    """Run cribench on daemons, ours first; if we are interrupted it is told so, and removes its pods."""
    ours, *others = running
    path = place.run / "client.json"
    command = [sys.executable, str(Path(__file__).with_name("cribench.py")), "--names", ",".join(each.name for each in running)]
    command += ["--socket", str(ours.socket), "--pid", str(ours.pid), "--cgroup", str(ours.cgroup)]
    for each in others:
        command += ["--vs", str(each.socket), "--vs-pid", str(each.pid), "--vs-cgroup", str(each.cgroup)]
    command = [*place.entering("client"), *command, "--json", str(path), *words]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        status = process.wait()
    except BaseException:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(90)
        process.kill()
        raise
    if status != 0:
        raise SystemExit(f"bench: the client ended with status {status}; the daemons' logs are in {place.logs}")
    return json.loads(path.read_text())  # type: ignore[no-any-return]


@contextlib.contextmanager
def swept(place: Place, daemons: list[Running]) -> Iterator[None]:
    """At the end no pod is left, so that the daemons take networks and mounts away themselves."""
    try:
        yield
    finally:
        asyncio.run(_sweep(place, daemons))


async def _sweep(place: Place, daemons: list[Running]) -> None:
    import grpc

    pb, services = cribench.load_stubs(str(place.stubs))
    for running in daemons:
        async with grpc.aio.insecure_channel(f"unix:{running.socket}") as channel:
            runtime = services.RuntimeServiceStub(channel)
            try:
                for pod in (await runtime.ListPodSandbox(pb.ListPodSandboxRequest(), timeout=60)).items:
                    await runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=60)
                    await runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=60)
            except grpc.aio.AioRpcError as error:
                print(f"bench: {running.name}: {error.details()}", file=sys.stderr)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    query = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *PACKAGES], capture_output=True, text=True)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    processor = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {
        "kernel": platform.release(),
        "processors": f"{os.cpu_count()} x {processor.partition(':')[2].strip()}",
        "cgroups": "v1" if any(line.split()[2] == "cgroup" for line in Path("/proc/self/mounts").open()) else "v2",
        "python": platform.python_version(),
        "packages": query.stdout.splitlines(),
        "commit": commit.stdout.strip(),
    }


def show(report: dict[str, Any], path: Path) -> None:
    loads = " ".join(f"{test} {before:.1f}–{after:.1f}" for test, (before, after) in report.get("loads", {}).items())
    print(f"\n{table.table(report)}\n")
    for name, shown in table.beside(report).items():
        print(f"{name}:\n\n{shown}\n")
    print(f"{report['begin']}, commit {report['commit']}, {report['processors']}, Linux {report['kernel']}, cgroup", end=" ")
    print(f"{report['cgroups']}, Python {report['python']}; {', '.join(report['packages'])}.")
    print(
        f"Load average while testing: {loads}"
        + (f" primitives {report['primitives']['load']:.1f}" if "primitives" in report else "")
    )
    print(f"All figures: {path}")
    if found := table.missed(report):
        print("Not met: " + "; ".join(found))


if __name__ == "__main__":
    sys.exit(main())
