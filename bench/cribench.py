#!/usr/bin/env python3
"""Measure a CRI daemon, alone or side by side with others.

usage: cribench.py --socket SOCKET --stubs DIR --image IMAGE [--vs SOCKET2 ...] [options]

What is measured (--tests, comma-separated):

  pod         one pod at a time: RunPodSandbox, CreateContainer, StartContainer until
              ContainerStatus says RUNNING ("start"), then StopContainer, RemoveContainer,
              StopPodSandbox, RemovePodSandbox ("stop"); "lifecycle" is both together
  throughput  pods started per second with several requests in flight (--concurrency)
  list        ListContainers, ListPodSandbox, ContainerStatus and others with
              --containers present
  crowd       the same calls with --crowd pods of one container
  exec        ExecSync of --exec-command in a running container: one after the other, and with a pause before each, as probes do
  pull        PullImage of --pull-image, removed before each pull
  present     PullImage of the first of these when it is there, beside a HEAD for its manifest
  latency     Version and ListContainers while that image is pulled, and at rest
  idle        unary Version and Status calls

With --vs each test alternates between the daemons (A B, B A, A B ...) and the ratio B/A
is taken of each pair of neighbours, so that a machine whose load changes still gives a
usable figure: read the median of the ratios, not two absolute columns.  With --vs given
more than once each of these has its own turns with A in the tests of pulls (A B, A C,
B A, C A ...); the others go round (A B C, C B A ...).

With --cgroup (and --vs-cgroup), the cgroup directory that holds a daemon and all it
starts, "cpu all" is the CPU of the daemon, its workers, plugins, monitors and runtimes
together, "cpu with client" that and this program's, and "peak PSS" and "peak RSS" their
largest memory during a pull, as shares and as sums, looked at every 100 ms.  A pull's CPU
is counted until the daemon rests again, and a pull begins when both rest and nothing is
left to be written to the disk: work done later counts, too.

The client is Python too and shares the processors with the daemon: about 0.4 ms of
each call is its own.  The daemon's CPU seconds and memory come from /proc by --pid
(and --vs-pid); "monitors" is the proportional memory (PSS) of the processes whose
command line names one of our pods or containers (conmon, shims), not the payload.

--stubs is a directory with api_pb2.py and api_pb2_grpc.py generated from
k8s.io/cri-api's api.proto; a package directory (with relative imports) works too.
"""

import argparse
import asyncio
import contextlib
import importlib
import itertools
import json
import os
import statistics
import sys
import time
import uuid

from pulls import quantile, test_latency, test_present, test_pull, turns  # noqa: F401  # tests are found by name

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")
PROBE_PAUSE_S = 0.1
TESTS = "idle,pod,throughput,list,crowd,exec,pull,present,latency"


def load_stubs(path):
    """Import api_pb2 and api_pb2_grpc from a plain or a package directory."""
    path = os.path.abspath(path)
    if os.path.exists(os.path.join(path, "__init__.py")):
        top, names = path, []
        while os.path.exists(os.path.join(top, "__init__.py")):
            top, name = os.path.split(top)
            names.insert(0, name)
        sys.path.insert(0, top)
        try:
            package = ".".join(names)
            return (importlib.import_module(package + ".api_pb2"), importlib.import_module(package + ".api_pb2_grpc"))
        except ImportError:
            sys.path.remove(top)
    sys.path.insert(0, path)
    return importlib.import_module("api_pb2"), importlib.import_module("api_pb2_grpc")


def summary(values):
    return {
        "n": len(values),
        "min": min(values),
        "p50": statistics.median(values),
        "p90": quantile(values, 0.9),
        "p99": quantile(values, 0.99),
        "max": max(values),
    }


class Process:
    """CPU time and memory of one daemon."""

    def __init__(self, pid):
        self.pid = pid

    def cpu(self):
        """Seconds used by the daemon and by its children that it has waited for."""
        if not self.pid:
            return None
        with open(f"/proc/{self.pid}/stat") as stream:
            fields = stream.read().rpartition(")")[2].split()
        return {"own": (int(fields[11]) + int(fields[12])) / TICK, "children": (int(fields[13]) + int(fields[14])) / TICK}

    def memory(self):
        """Resident size now and its peak, in MiB."""
        if not self.pid:
            return None
        found = {}
        with open(f"/proc/{self.pid}/status") as stream:
            for line in stream:
                if line.startswith(("VmRSS:", "VmHWM:", "Threads:")):
                    name, value = line.split()[:2]
                    found[name[:-1]] = int(value) / 1024 if name != "Threads:" else int(value)
        return found


class Group:
    """CPU time and memory of all processes below a cgroup: a daemon and what it has started."""

    def __init__(self, directory):
        self.directory = directory

    def cpu(self):
        """Seconds used by all processes, also those that are gone."""
        if os.path.exists(f"{self.directory}/cpuacct.usage"):  # version 1
            with open(f"{self.directory}/cpuacct.usage") as stream:
                return int(stream.read()) / 1e9
        with open(f"{self.directory}/cpu.stat") as stream:
            return int(stream.readline().split()[1]) / 1e6  # usage_usec comes first

    def pids(self):
        for top, _, files in os.walk(self.directory):
            if "cgroup.procs" in files:
                with contextlib.suppress(OSError), open(f"{top}/cgroup.procs") as stream:
                    yield from stream.read().split()

    def memory(self):
        """PSS of all processes together, in MiB."""
        return sum(pss(pid) for pid in self.pids())

    async def rest(self, limit=60.0):
        """Wait until the processes use less than a twentieth of a processor."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            before = self.cpu()
            await asyncio.sleep(0.2)
            if self.cpu() - before < 0.01:
                return


def pss(pid):
    """Proportional memory of a process in MiB; zero when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as stream:
        for row in stream:
            if row.startswith("Pss:"):
                return int(row.split()[1]) / 1024
    return 0.0


def cgroup_roots():
    """Where the hierarchies are mounted: one on version 2, several on version 1."""
    with open("/proc/self/mounts") as stream:
        return [words[1] for words in map(str.split, stream) if words[2] in ("cgroup", "cgroup2")]


def make_cgroup(path):
    """Make a cgroup in every hierarchy, as the kubelet does for a pod."""
    for root in cgroup_roots():
        where = root
        for part in path.strip("/").split("/"):
            above, where = where, f"{where}/{part}"
            if os.path.isdir(where):
                continue
            os.mkdir(where)
            for name in ("cpuset.cpus", "cpuset.mems"):  # version 1: empty in a new cgroup, which then takes no process
                with contextlib.suppress(OSError), open(f"{above}/{name}") as old, open(f"{where}/{name}", "w") as new:
                    new.write(old.read())


def remove_cgroup(path):
    """Remove an empty cgroup, with empty ones below it, from every hierarchy."""
    for root in cgroup_roots():
        for top, _, _ in os.walk(f"{root}/{path.strip('/')}", topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(top)


def monitors(ids):
    """Number and PSS in MiB of the processes whose command line names one of ids."""
    count, size = 0, 0
    own = os.getpid()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == own:
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as stream:
                line = stream.read().decode("utf-8", "replace")
            if not any(name in line for name in ids):
                continue
            size += pss(entry)
            count += 1
        except OSError:
            pass
    return count, size


class Daemon:
    """One CRI endpoint and the pods that this run has made on it."""

    def __init__(self, name, place, options, stubs):
        import grpc

        socket, pid, group = place
        pb, grpc_stubs = stubs
        self.name, self.options, self.pb = name, options, pb
        self.process = Process(pid)
        self.group = Group(group) if group else None
        limits = [("grpc.max_receive_message_length", 16 << 20)]
        self.channel = grpc.aio.insecure_channel("unix:" + os.path.abspath(socket), options=limits)
        self.runtime = grpc_stubs.RuntimeServiceStub(self.channel)
        self.images = grpc_stubs.ImageServiceStub(self.channel)
        self.error = grpc.aio.AioRpcError
        self.run = uuid.uuid4().hex[:8]
        self.number = 0
        self.pods = {}
        self.cgroups = {}
        self.image_id = ""

    async def call(self, method, request):
        return await method(request, timeout=self.options.timeout)

    def pod_config(self):
        pb, number = self.pb, self.number
        self.number += 1
        uid = f"{self.run}{number:024x}"
        config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name=f"bench-{self.run}-{number}", uid=uid, namespace="bench", attempt=0),
            hostname=f"bench-{number}",
            log_directory=f"{self.options.logs}/{self.run}-{self.name}-{number}",
            dns_config=pb.DNSConfig(servers=["10.96.0.10"], searches=["bench.svc.cluster.local"], options=["ndots:5"]),
            labels={
                "app": "bench",
                "io.kubernetes.pod.name": f"bench-{number}",
                "io.kubernetes.pod.namespace": "bench",
                "io.kubernetes.pod.uid": uid,
            },
        )
        if self.options.cgroup_parent:
            config.linux.cgroup_parent = f"{self.options.cgroup_parent}/{self.name}/pod{uid}"
        config.linux.security_context.namespace_options.pid = pb.CONTAINER
        config.linux.security_context.seccomp.profile_type = 0 if self.options.seccomp else 1
        if self.options.host_network:
            config.linux.security_context.namespace_options.network = pb.NODE
        if self.options.port:
            config.port_mappings.add(protocol=pb.TCP, container_port=80, host_port=self.options.port + number % 1000)
        return config

    def container_config(self, name="main"):
        pb = self.pb
        config = pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name=name, attempt=0),
            image=pb.ImageSpec(image=self.image_id, user_specified_image=self.options.image),
            command=self.options.command.split(),
            log_path=f"{name}/0.log",
            labels={"app": "bench", "io.kubernetes.container.name": name},
            annotations={"io.kubernetes.container.hash": "0"},
        )
        config.linux.resources.cpu_shares = 100
        config.linux.resources.memory_limit_in_bytes = self.options.memory << 20
        context = config.linux.security_context
        context.namespace_options.pid = pb.CONTAINER
        if self.options.host_network:
            context.namespace_options.network = pb.NODE
        context.seccomp.profile_type = 0 if self.options.seccomp else 1
        return config

    async def start_pod(self, steps=None, containers=1):
        """Start one pod; returns (pod id, container ids, seconds)."""
        pb, steps = self.pb, {} if steps is None else steps
        config = self.pod_config()
        # The kubelet makes the cgroup and the log directory; count neither side for them.
        if config.linux.cgroup_parent:
            make_cgroup(config.linux.cgroup_parent)
        os.makedirs(config.log_directory, exist_ok=True)
        clock = time.perf_counter
        begin = clock()
        pod = (
            await self.call(
                self.runtime.RunPodSandbox, pb.RunPodSandboxRequest(config=config, runtime_handler=self.options.handler)
            )
        ).pod_sandbox_id
        self.pods[pod] = made = []
        self.cgroups[pod] = config.linux.cgroup_parent
        last = clock()
        steps["RunPodSandbox"] = last - begin
        for number in range(containers):
            name = "main" if containers == 1 else f"main{number}"
            os.makedirs(os.path.join(config.log_directory, name), exist_ok=True)
            last = clock()
            container = (
                await self.call(
                    self.runtime.CreateContainer,
                    pb.CreateContainerRequest(pod_sandbox_id=pod, config=self.container_config(name), sandbox_config=config),
                )
            ).container_id
            made.append(container)
            now = clock()
            steps["CreateContainer"] = now - last
            last = now
            await self.call(self.runtime.StartContainer, pb.StartContainerRequest(container_id=container))
            now = clock()
            steps["StartContainer"] = now - last
            last = now
            while True:
                answer = await self.call(self.runtime.ContainerStatus, pb.ContainerStatusRequest(container_id=container))
                if answer.status.state == pb.CONTAINER_RUNNING:
                    break
                if answer.status.state == pb.CONTAINER_EXITED:
                    raise RuntimeError(f"{self.name}: container ended: {answer.status.message}")
                await asyncio.sleep(0.001)
        total = clock() - begin
        steps["start"] = total
        return pod, made, total

    async def stop_pod(self, pod, steps=None):
        pb, steps = self.pb, {} if steps is None else steps
        clock = time.perf_counter
        begin = last = clock()
        for container in self.pods[pod]:
            await self.call(self.runtime.StopContainer, pb.StopContainerRequest(container_id=container, timeout=0))
            now = clock()
            steps["StopContainer"] = now - last
            last = now
            await self.call(self.runtime.RemoveContainer, pb.RemoveContainerRequest(container_id=container))
            now = clock()
            steps["RemoveContainer"] = now - last
            last = now
        await self.call(self.runtime.StopPodSandbox, pb.StopPodSandboxRequest(pod_sandbox_id=pod))
        now = clock()
        steps["StopPodSandbox"] = now - last
        last = now
        await self.call(self.runtime.RemovePodSandbox, pb.RemovePodSandboxRequest(pod_sandbox_id=pod))
        now = clock()
        steps["RemovePodSandbox"] = now - last
        steps["stop"] = now - begin
        del self.pods[pod]
        if cgroup := self.cgroups.pop(pod):
            remove_cgroup(cgroup)
        return steps["stop"]

    async def clean(self):
        for pod in list(self.pods):
            try:
                await self.stop_pod(pod)
            except self.error as error:
                print(f"{self.name}: pod {pod} stays: {error.details()}", file=sys.stderr)

    async def find_image(self, image):
        answer = await self.call(self.images.ImageStatus, self.pb.ImageStatusRequest(image=self.pb.ImageSpec(image=image)))
        self.image_id = answer.image.id
        return bool(self.image_id)

    async def pull(self, image):
        begin = time.perf_counter()
        await self.call(self.images.PullImage, self.pb.PullImageRequest(image=self.pb.ImageSpec(image=image)))
        return time.perf_counter() - begin

    async def remove_image(self, image):
        await self.call(self.images.RemoveImage, self.pb.RemoveImageRequest(image=self.pb.ImageSpec(image=image)))


class Results:
    """Samples by (test, measure, name) and ratios to the first name by (test, measure, other name)."""

    def __init__(self, names):
        self.names = names
        self.samples, self.ratios, self.units = {}, {}, {}

    def pair(self, test, values, unit="ms", scale=1e3):
        """values: {daemon name: {measure: value}}, one round of all daemons."""
        for name, measures in values.items():
            for measure, value in measures.items():
                self.samples.setdefault((test, measure), {}).setdefault(name, []).append(value * scale)
                self.units[test, measure] = unit
        first = values.get(self.names[0], {})
        for name in self.names[1:]:
            for measure in first.keys() & values.get(name, {}).keys():
                if first[measure]:
                    self.ratios.setdefault((test, measure, name), []).append(values[name][measure] / first[measure])

    def table(self):
        lines = []
        for key, by_daemon in self.samples.items():
            row = {"test": key[0], "measure": key[1], "unit": self.units[key]}
            row["daemons"] = {name: summary(values) for name, values in by_daemon.items()}
            found = {name: self.ratios[*key, name] for name in self.names if (*key, name) in self.ratios}
            row["ratios"] = {
                name: {
                    "p50": statistics.median(ratios),
                    "p10": quantile(ratios, 0.1),
                    "p90": quantile(ratios, 0.9),
                    "n": len(ratios),
                }
                for name, ratios in found.items()
            }
            lines.append(row)
        return lines

    def show(self):
        names = self.names
        head = f"{'test':<18}{'measure':<28}{'unit':<7}"
        head += "".join(f"{name[:11] + ' p50':>16}{'p99':>10}{'min':>10}" for name in names)
        head += "".join(f"{'ratio ' + name[:6] + '/' + names[0][:6]:>22}{'p10..p90':>14}" for name in names[1:])
        print(head + f"{'n':>6}")
        for row in self.table():
            line = f"{row['test']:<18}{row['measure']:<28}{row['unit']:<7}"
            count = 0
            for name in names:
                found = row["daemons"].get(name)
                if found:
                    line += f"{found['p50']:>16.2f}{found['p99']:>10.2f}{found['min']:>10.2f}"
                    count = found["n"]
                else:
                    line += f"{'-':>16}{'-':>10}{'-':>10}"
            for name in names[1:]:
                ratio = row["ratios"].get(name)
                line += f"{ratio['p50']:>22.3f}{ratio['p10']:>7.2f}{ratio['p90']:>7.2f}" if ratio else " " * 36
            print(line + f"{count:>6}")


async def test_idle(daemons, options, results):
    pb = daemons[0].pb
    for daemon in daemons:
        await daemon.call(daemon.runtime.Version, pb.VersionRequest())
    for number in range(options.calls):
        values = {}
        for daemon in turns(daemons, number):
            values[daemon.name] = {}
            for measure, method, request in (
                ("Version", daemon.runtime.Version, pb.VersionRequest()),
                ("Status", daemon.runtime.Status, pb.StatusRequest()),
            ):
                begin = time.perf_counter()
                await daemon.call(method, request)
                values[daemon.name][measure] = time.perf_counter() - begin
        results.pair("idle", values)
    sizes = {}
    for daemon in daemons:
        memory = daemon.process.memory()
        sizes[daemon.name] = {"RSS of the daemon": memory["VmRSS"]} if memory else {}
        if daemon.group:
            sizes[daemon.name]["PSS of all processes"] = daemon.group.memory()
    results.pair("idle", sizes, unit="MiB", scale=1)


async def test_pod(daemons, options, results):
    for daemon in daemons:  # warm-up, not counted
        pod, _, _ = await daemon.start_pod()
        await daemon.stop_pod(pod)
    for number in range(options.pods):
        values = {}
        for daemon in turns(daemons, number):
            steps = {}
            before = daemon.process.cpu()
            used = daemon.group.cpu() if daemon.group else 0
            pod, _, _ = await daemon.start_pod(steps)
            if options.settle:
                await asyncio.sleep(options.settle)
            await daemon.stop_pod(pod, steps)
            after = daemon.process.cpu()
            steps["lifecycle"] = steps["start"] + steps["stop"]
            if before:
                steps["cpu daemon"] = after["own"] - before["own"]
                steps["cpu children"] = after["children"] - before["children"]
            if daemon.group:
                steps["cpu all"] = daemon.group.cpu() - used
            values[daemon.name] = steps
        results.pair("pod", values)


async def test_throughput(daemons, options, results):
    for width in (int(part) for part in options.concurrency.split(",")):
        for number in range(options.rounds):
            values = {}
            for daemon in turns(daemons, number):
                gate = asyncio.Semaphore(width)
                pods, latencies = [], []

                async def start(daemon=daemon, gate=gate, pods=pods, latencies=latencies):
                    async with gate:
                        pod, _, taken = await daemon.start_pod()
                        pods.append(pod)
                        latencies.append(taken)

                async def stop(pod, daemon=daemon, gate=gate):
                    async with gate:
                        await daemon.stop_pod(pod)

                begin = time.perf_counter()
                async with asyncio.TaskGroup() as group:
                    for _ in range(options.burst):
                        group.create_task(start())
                started = time.perf_counter() - begin
                begin = time.perf_counter()
                async with asyncio.TaskGroup() as group:
                    for pod in pods:
                        group.create_task(stop(pod))
                stopped = time.perf_counter() - begin
                values[daemon.name] = {
                    f"start c={width}": options.burst / started,
                    f"stop c={width}": options.burst / stopped,
                    f"lifecycle c={width}": options.burst / (started + stopped),
                }
            results.pair("throughput", values, unit="pods/s", scale=1)


async def test_list(daemons, options, results):
    pb = daemons[0].pb
    per_pod = max(1, min(options.containers_per_pod, options.containers))
    count = max(1, options.containers // per_pod)
    for daemon in daemons:
        before = daemon.process.memory()
        for _ in range(count):
            await daemon.start_pod(containers=per_pod)
        names = [name for pod, made in daemon.pods.items() for name in (pod, *made)]
        number, size = monitors(names)
        values = {"monitors PSS/pod": size / count, "monitors PSS/container": size / (count * per_pod)}
        daemon.monitors = {"monitors": number}
        if before:
            values["daemon RSS growth"] = daemon.process.memory()["VmRSS"] - before["VmRSS"]
        daemon.list_memory = values
    results.pair("list", {daemon.name: daemon.list_memory for daemon in daemons}, unit="MiB", scale=1)
    results.pair("list", {daemon.name: daemon.monitors for daemon in daemons}, unit="count", scale=1)
    await ask_all(daemons, options, results, "list", (f"ListContainers {count * per_pod}", f"ListPodSandbox {count}"))
    for number in range(max(1, options.calls // 10)):
        values = {}
        for daemon in turns(daemons, number):
            begin = time.perf_counter()
            try:
                await daemon.call(daemon.runtime.ListContainerStats, pb.ListContainerStatsRequest())
            except daemon.error as error:
                print(f"{daemon.name}: ListContainerStats: {error.details()}", file=sys.stderr)
                continue
            values[daemon.name] = {"ListContainerStats": time.perf_counter() - begin}
        results.pair("list", values)
    for daemon in daemons:
        await daemon.clean()


async def test_crowd(daemons, options, results):
    for daemon in daemons:
        for _ in range(options.crowd):
            await daemon.start_pod()
    await ask_all(daemons, options, results, "crowd", ("ListContainers", "ListPodSandbox"))
    for daemon in daemons:
        await daemon.clean()


async def ask_all(daemons, options, results, test, lists):
    """Time the calls that only look; `lists` are the names of the two lists' figures."""
    pb = daemons[0].pb
    for number in range(options.calls):
        values = {}
        for daemon in turns(daemons, number):
            pods = list(daemon.pods)
            pod = pods[number % len(pods)]
            container = daemon.pods[pod][0]
            runtime, values[daemon.name] = daemon.runtime, {}
            for measure, method, request in (
                (lists[0], runtime.ListContainers, pb.ListContainersRequest()),
                (lists[1], runtime.ListPodSandbox, pb.ListPodSandboxRequest()),
                ("ContainerStatus", runtime.ContainerStatus, pb.ContainerStatusRequest(container_id=container)),
                ("PodSandboxStatus", runtime.PodSandboxStatus, pb.PodSandboxStatusRequest(pod_sandbox_id=pod)),
                (
                    "ListContainers filter",
                    runtime.ListContainers,
                    pb.ListContainersRequest(filter=pb.ContainerFilter(pod_sandbox_id=pod)),
                ),
            ):
                begin = time.perf_counter()
                await daemon.call(method, request)
                values[daemon.name][measure] = time.perf_counter() - begin
        results.pair(test, values)


async def test_exec(daemons, options, results):
    pb = daemons[0].pb
    made = {}
    for daemon in daemons:
        _, containers, _ = await daemon.start_pod()
        made[daemon.name] = containers[0]
    for measure, pause_s in (("ExecSync", 0), ("ExecSync, now and then", PROBE_PAUSE_S)):
        for number in range(options.execs + 1):
            values = {}
            for daemon in turns(daemons, number):
                await asyncio.sleep(pause_s)
                begin = time.perf_counter()
                answer = await daemon.call(
                    daemon.runtime.ExecSync,
                    pb.ExecSyncRequest(container_id=made[daemon.name], cmd=options.exec_command.split(), timeout=30),
                )
                values[daemon.name] = {measure: time.perf_counter() - begin}
                if answer.exit_code:
                    raise RuntimeError(f"{daemon.name}: {options.exec_command}: {answer.stderr[:200]!r}")
            if number:  # the first is the warm-up
                results.pair("exec", values)
    for daemon in daemons:
        await daemon.clean()


def arguments(words=None):
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--socket", required=True, help="CRI socket of daemon A")
    add("--vs", action="append", default=[], help="CRI socket of daemon B; again for another")
    add("--names", default="A,B", help="what to call them in the tables")
    add("--pid", type=int, help="process of daemon A, for CPU and memory")
    add("--vs-pid", type=int, action="append", default=[], help="process of daemon B; as often as --vs")
    add("--cgroup", help="cgroup directory of daemon A and what it starts (version 1: of cpuacct)")
    add("--vs-cgroup", action="append", default=[], help="the same of daemon B; as often as --vs")
    add("--stubs", required=True, help="directory with api_pb2 and api_pb2_grpc")
    add("--image", required=True, help="image of the containers, pulled if absent")
    add("--command", default="/bin/sleep 3600", help="what the containers run")
    add("--exec-command", default="/bin/true")
    add("--tests", default=TESTS, help="of " + TESTS)
    add("--pods", type=int, default=30, help="rounds of the pod test")
    add("--settle", type=float, default=0, help="seconds between start and stop of a pod")
    add("--concurrency", default="4,8", help="requests in flight in the throughput test")
    add("--burst", type=int, default=24, help="pods per throughput round")
    add("--rounds", type=int, default=3, help="throughput rounds per concurrency")
    add("--containers", type=int, default=50, help="containers present in the list test")
    add("--containers-per-pod", type=int, default=5)
    add("--crowd", type=int, default=200, help="pods of one container present in the crowd test")
    add("--calls", type=int, default=200, help="calls per method in the list and idle tests")
    add("--execs", type=int, default=30)
    add("--pull-image", help="images of the pull tests, comma-separated; `name=image` gives a test another name than `pull`")
    add("--pulls", type=int, default=5)
    add("--handler", default="", help="runtime handler")
    add("--cgroup-parent", default="", help="pods get a cgroup <this>/<name of the daemon>/pod<uid>, made by the client")
    add("--memory", type=int, default=64, help="memory limit of a container, MiB")
    add("--seccomp", action="store_true", help="RuntimeDefault instead of Unconfined")
    add("--host-network", action="store_true")
    add("--port", type=int, default=0, help="map host ports from this number on")
    add("--logs", default="/tmp/cribench-logs", help="directory of the pods' logs")
    add("--timeout", type=float, default=120, help="of one call, seconds")
    add("--json", help="write the figures to this file")
    return parser.parse_args(words)


async def main(options):
    stubs = load_stubs(options.stubs)
    pb = stubs[0]
    names = options.names.split(",")
    others = itertools.zip_longest(options.vs, options.vs_pid, options.vs_cgroup)
    places = [(options.socket, options.pid, options.cgroup), *others]
    daemons = [Daemon(name, place, options, stubs) for name, place in zip(names, places, strict=False)]
    results = Results([daemon.name for daemon in daemons])
    report = {"image": options.image, "load_before": os.getloadavg(), "daemons": {}, "loads": {}}
    for daemon in daemons:
        version = await daemon.call(daemon.runtime.Version, pb.VersionRequest())
        if not await daemon.find_image(options.image):
            await daemon.pull(options.image)
            await daemon.find_image(options.image)
        report["daemons"][daemon.name] = {
            "runtime": f"{version.runtime_name} {version.runtime_version}",
            "cpu_before": daemon.process.cpu(),
            "memory_before": daemon.process.memory(),
        }
    try:
        for test in options.tests.split(","):
            begin, load = time.perf_counter(), os.getloadavg()[0]
            await globals()["test_" + test](daemons, options, results)
            report["loads"][test] = [load, os.getloadavg()[0]]
            print(f"# {test}: {time.perf_counter() - begin:.1f} s, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    finally:
        for daemon in daemons:
            await daemon.clean()
            entry = report["daemons"][daemon.name]
            entry["cpu_after"], entry["memory_after"] = daemon.process.cpu(), daemon.process.memory()
            await daemon.channel.close()
        report["load_after"] = os.getloadavg()
        report["results"] = results.table()
        results.show()
        for name, entry in report["daemons"].items():
            line = f"# {name}: {entry['runtime']}"
            if entry["memory_after"]:
                before, after = entry["cpu_before"], entry["cpu_after"]
                line += (
                    f"; RSS {entry['memory_before']['VmRSS']:.1f} -> {entry['memory_after']['VmRSS']:.1f} MiB"
                    f" (peak {entry['memory_after']['VmHWM']:.1f}), CPU {after['own'] - before['own']:.2f} s"
                    f" + children {after['children'] - before['children']:.2f} s"
                )
            print(line)
        if options.json:
            write_json(options.json, report)


def write_json(path, report):
    with open(path, "w") as stream:
        json.dump(report, stream, indent=1)


if __name__ == "__main__":
    try:
        asyncio.run(main(arguments()))
    except KeyboardInterrupt:
        sys.exit(130)
