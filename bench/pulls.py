"""The pull tests of cribench: an image that comes, an image that is there, and what other calls wait meanwhile."""

import asyncio
import contextlib
import http.client
import os
import statistics
import threading
import time

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
PACE_S = 0.005  # between two calls while their latency is taken


def turns(daemons, number):
    """The order of one round: A B, then B A."""
    return daemons if number % 2 == 0 else daemons[::-1]


def rounds(daemons, count):
    """(number, daemons) of each round; the first daemon meets every other by itself, so that the two are neighbours in time."""
    couples = [[daemons[0], other] for other in daemons[1:]] or [daemons]
    return [(number, couple) for number in range(count) for couple in couples]


def quantile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(part * len(values)))]


def wanted(options):
    """(test name, image) of --pull-image, which is a list of `name=image` or of images alone."""
    for word in filter(None, (options.pull_image or "").split(",")):
        name, equals, image = word.rpartition("=")
        yield (name if equals else "pull"), image


def sizes(pid):
    """PSS and RSS of a process in MiB; zeros when it is gone."""
    found = {"Pss:": 0.0, "Rss:": 0.0}
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as stream:
        for row in stream:
            if row.startswith(("Pss:", "Rss:")):
                found[row[:4]] = int(row.split()[1]) / 1024
    return found["Pss:"], found["Rss:"]


class Watch(threading.Thread):
    """Keeps the peaks of a cgroup's memory while the block runs; `cpu` is what it has used itself, in seconds."""

    def __init__(self, group):
        super().__init__()
        self.group, self.done = group, threading.Event()
        self.pss = self.rss = self.cpu = 0.0

    def run(self):
        is_over = False
        while not is_over:
            each = [sizes(pid) for pid in self.group.pids()]
            self.pss = max(self.pss, sum(pss for pss, _ in each))
            self.rss = max(self.rss, sum(rss for _, rss in each))
            self.cpu = time.thread_time()
            is_over = self.done.wait(0.1)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.join()


async def test_pull(daemons, options, results):
    for test, image in wanted(options):
        for daemon in daemons:  # the same layers in another compression would be found here, and not pulled
            for _, other in wanted(options):
                if other != image:
                    await daemon.remove_image(other)
        for number, couple in rounds(daemons, options.pulls):
            walls, memory = {}, {}
            for daemon in turns(couple, number):
                present = await daemon.find_image(image)
                removed = await removal(daemon, image)
                await rest(daemons)
                walls[daemon.name], memory[daemon.name] = await watched_pull(daemon, image)
                if present:
                    walls[daemon.name] |= removed
                await daemon.find_image(options.image)
            results.pair(test, walls)
            if daemons[0].group:
                results.pair(test, memory, unit="MiB", scale=1)


async def rest(daemons):
    """Wait until nobody works and nothing is left to be written."""
    for each in daemons:
        if each.group:
            await each.group.rest()
    os.sync()


async def removal(daemon, image):
    """Remove an image; its CPU is counted until the daemon rests."""
    before = daemon.group.cpu() if daemon.group else 0
    begin = time.perf_counter()
    await daemon.remove_image(image)
    values = {"RemoveImage": time.perf_counter() - begin}
    if daemon.group:
        await daemon.group.rest()
        values["cpu all of RemoveImage"] = daemon.group.cpu() - before
    return values


async def watched_pull(daemon, image):
    """Pull an image; returns times in seconds and memory in MiB."""
    own = daemon.process.cpu()
    if not daemon.group:
        walls = {"PullImage": await daemon.pull(image)}
        return walls | ({"cpu daemon": daemon.process.cpu()["own"] - own["own"]} if own else {}), {}
    before, client = daemon.group.cpu(), time.process_time()
    with Watch(daemon.group) as watch:
        walls = {"PullImage": await daemon.pull(image)}
        client = time.process_time() - client - watch.cpu
    walls["cpu at its end"] = daemon.group.cpu() - before
    await daemon.group.rest()
    walls["cpu all"] = daemon.group.cpu() - before
    walls["cpu with client"] = walls["cpu all"] + max(0.0, client)
    if own:
        walls["cpu daemon"] = daemon.process.cpu()["own"] - own["own"]
    return walls, {"peak PSS": watch.pss, "peak RSS": watch.rss}


async def test_present(daemons, options, results):
    """Pull what is there, and beside it ask the registry for the manifest as a daemon must."""
    for _, image in list(wanted(options))[:1]:
        for daemon in daemons:
            if not await daemon.find_image(image):
                await daemon.pull(image)
        for number, couple in rounds(daemons, options.calls // 4):
            values = {}
            for daemon in turns(couple, number):
                values[daemon.name] = {"PullImage": await daemon.pull(image), "HEAD": await asyncio.to_thread(head, image)}
                values[daemon.name]["over HEAD"] = values[daemon.name]["PullImage"] - values[daemon.name]["HEAD"]
            if number:  # the first is the warm-up
                results.pair("present", values)
        for daemon in daemons:
            await daemon.find_image(options.image)


def head(image):
    """Seconds of a HEAD request for the manifest, connection included."""
    name, _, tag = image.rpartition(":")
    host, _, repository = name.partition("/")
    begin = time.perf_counter()
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.request("HEAD", f"/v2/{repository}/manifests/{tag}", headers={"Accept": MANIFEST})
    connection.getresponse().read()
    connection.close()
    return time.perf_counter() - begin


async def test_latency(daemons, options, results):
    """The slowest hundredth of small calls while a daemon pulls, and while it rests."""
    for _, image in list(wanted(options))[:1]:
        for number, couple in rounds(daemons, options.pulls):
            values, times = {}, {}
            for daemon in turns(couple, number):
                idle = await sampled(daemon, count=options.calls)
                await daemon.remove_image(image)
                await rest(daemons)
                pulling = asyncio.create_task(daemon.pull(image))
                busy = await sampled(daemon, until=pulling)
                await pulling
                await daemon.find_image(options.image)
                times[daemon.name], values[daemon.name] = {}, {}
                for call in idle:
                    slow, calm = quantile(busy[call], 0.99), quantile(idle[call], 0.99)
                    times[daemon.name] |= {f"{call} p99 idle": calm, f"{call} p99 pulling": slow}
                    times[daemon.name][f"{call} p50 pulling"] = statistics.median(busy[call])
                    values[daemon.name][f"{call} p99 to idle"] = slow / calm
            results.pair("latency", times)
            results.pair("latency", values, unit="x", scale=1)


async def sampled(daemon, *, count=0, until=None):
    """Seconds of Version and ListContainers, in turns: so many of each, or until a task is done."""
    pb, runtime = daemon.pb, daemon.runtime
    calls = {
        "Version": (runtime.Version, pb.VersionRequest()),
        "ListContainers": (runtime.ListContainers, pb.ListContainersRequest()),
    }
    found = {name: [] for name in calls}
    while not found["Version"] or (len(found["Version"]) < count if until is None else not until.done()):
        for name, (method, request) in calls.items():
            begin = time.perf_counter()
            await daemon.call(method, request)
            found[name].append(time.perf_counter() - begin)
        await asyncio.sleep(PACE_S)
    return found
