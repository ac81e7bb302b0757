"""The figures of a run as a table in Markdown.

Ratios are medians of neighbouring pairs, turned so that above 1 is better for ours: containerd / ours for times, CPU and
memory, ours / containerd for rates. Other peers have a table each, of the same shape.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple


class Line(NamedTuple):
    """One line of the table. `ratio` is the least that is wanted of the ratio, `most` and `least` are of our own value."""

    label: str
    test: str
    measure: str
    ratio: float | None = None
    most: float | None = None
    least: float | None = None
    said: str = ""


def _pulls(picture: str, what: str, *, wall: float | None, cpu: float) -> tuple[Line, ...]:
    """The lines of another image; `wall` and `cpu` are the largest share of containerd's that is wanted."""
    test, time = f"pull {picture}", f"at most {wall} of its time" if wall else ""
    return (
        Line(f"pull, {what}", test, "PullImage", ratio=1 / wall if wall else None, said=time),
        Line("– CPU, all processes", test, "cpu all", ratio=1 / cpu, said=f"at most {cpu:g} of its CPU"),
        Line("– peak memory (RSS), all processes", test, "peak RSS", most=150, said="at most 150 MiB"),
    )


LINES: Final = (
    Line("pod start, until its container is seen running", "pod", "start", ratio=1.8, said="1.8x faster"),
    Line("– RunPodSandbox", "pod", "RunPodSandbox"),
    Line("– CreateContainer", "pod", "CreateContainer"),
    Line("– StartContainer", "pod", "StartContainer"),
    Line("pod lifecycle, start to removal", "pod", "lifecycle", ratio=1.8, said="1.8x faster"),
    Line("StopContainer, no grace", "pod", "StopContainer", ratio=8, said="8x faster"),
    Line("StopPodSandbox", "pod", "StopPodSandbox"),
    Line("CPU of a pod lifecycle, plugins and runtime included", "pod", "cpu all"),
    Line("pods started per second, 8 clients", "throughput", "start c=8", ratio=2, said="2x as many"),
    Line("pod lifecycles per second, 8 clients", "throughput", "lifecycle c=8"),
    Line("ExecSync of /bin/true", "exec", "ExecSync", ratio=2, said="2x faster"),
    Line("– as probes come, 0.1 s apart", "exec", "ExecSync, now and then"),
    Line("– of a command in a pod that streams", "streaming", "ExecSync true"),
    Line("– bare `crun exec` of it", "streaming", "crun exec"),
    Line("exec of /bin/true by SPDY", "streaming", "exec true, streamed"),
    Line("exec, output of one stream", "streaming", "exec output", least=400, said="at least 400 MB/s"),
    Line("exec, input of one stream", "streaming", "exec stdin"),
    Line("port-forward, out of the pod", "streaming", "port-forward out", least=400, said="at least 400 MB/s"),
    Line("port-forward, into the pod", "streaming", "port-forward in"),
    Line("– what the client takes from a socket", "streaming", "client limit"),
    Line("daemon (RSS), before streaming", "streaming", "RSS before"),
    Line("– after it", "streaming", "RSS after"),
    Line("pull, {pulled}", "pull", "PullImage", ratio=1 / 0.4, said="at most 0.4 of its time"),
    Line("– CPU, all processes", "pull", "cpu all", ratio=1 / 0.5, said="at most 0.5 of its CPU"),
    Line("– CPU, with the client's", "pull", "cpu with client"),
    Line("– peak memory (PSS), all processes", "pull", "peak PSS"),
    Line("– peak memory (RSS), all processes", "pull", "peak RSS", most=150, said="at most 150 MiB"),
    Line("remove that image, CPU", "pull", "cpu all of RemoveImage"),
    *_pulls("few:gzip", "1 GB in three layers", wall=0.45, cpu=0.6),
    *_pulls("many:zstd", "the many files as zstd", wall=None, cpu=0.6),
    *_pulls("few:zstd", "the large files as zstd", wall=None, cpu=1),
    Line("pull of an image that is here", "present", "PullImage"),
    Line("– over a HEAD of its manifest", "present", "over HEAD", most=5, said="at most 5 ms"),
    Line("Version while it pulls, p99", "latency", "Version p99 pulling"),
    Line("– to the p99 at rest", "latency", "Version p99 to idle", most=3, said="at most 3x"),
    Line("ListContainers while it pulls, p99", "latency", "ListContainers p99 pulling"),
    Line("– to the p99 at rest", "latency", "ListContainers p99 to idle", most=3, said="at most 3x"),
    Line("Version, unary call", "idle", "Version"),
    Line("Status", "idle", "Status"),
    Line("ListContainers, {containers} containers", "list", "ListContainers {containers}"),
    Line("ContainerStatus", "list", "ContainerStatus"),
    Line("ListContainers, many pods", "crowd", "ListContainers", ratio=1 / 1.5, said="at most 1.5 of its time"),
    Line("ListPodSandbox, many pods", "crowd", "ListPodSandbox", ratio=1 / 1.5, said="at most 1.5 of its time"),
    Line("ListContainerStats", "list", "ListContainerStats"),
    Line("monitors (PSS) per pod of five containers", "list", "monitors PSS/pod"),
    Line("daemon (RSS), idle", "idle", "RSS of the daemon", most=45, said="at most 45 MiB"),
    Line("– with helpers (PSS)", "idle", "PSS of all processes"),
)
PULLED: Final = {"many": "55,000 files in six layers", "few": "1 GB in three layers", "tiny": "one small layer"}
OVERHEAD_MS: Final = 8.0
BARE: Final = 1.25  # how much more than the bare pipeline a pull of many files may take
BARE_LINES: Final = (  # label, measure, pipeline of bench/pipeline.py, whether judged
    ("{program} to tar, layers of {picture}", "wall", "bare", True),
    ("– CPU", "cpu", "bare", True),
    ("– CPU, and both digests", "cpu and digests", "bare", False),
    ("– fetched from the registry by curl", "wall", "bare, fetched", False),
    ("– – CPU", "cpu", "bare, fetched", False),
    ("– – CPU, and both digests", "cpu and digests", "bare, fetched", False),
)
THEIRS: Final = "containerd"  # Debian's
HEAD: Final = ("| measure | ours | containerd | better by (p10..p90) | wanted | met |", "|---|---|---|---|---|---|")
SHARES: Final = {  # by kind of peer: the largest share of its time or CPU that is wanted; a stock containerd's are Debian's
    "tuned containerd": {("pull", "PullImage"): 0.55},
    "cri-o": {("pull", "PullImage"): 0.3, ("pull", "cpu all"): 0.3, ("pull few:gzip", "cpu all"): 0.35},
}


def table(report: dict[str, Any]) -> str:
    """The table of a run's report (see `report` in `__main__`); lines without figures are left out."""
    lines = [*HEAD, *_lines(report, THEIRS, LINES)]
    lines += [_after(report), *_primitives(report.get("primitives")), *_pipeline(report)]
    return "\n".join(each for each in lines if each)


def beside(report: dict[str, Any]) -> dict[str, str]:
    """A table for each further peer, and what became of a pod on it."""
    tables = {}
    for name, peer in report.get("peers", {}).items():
        lines = _lines(report, name, [_of_peer(line, peer["kind"]) for line in LINES])
        told = f"Pods are not compared; one did not start with this machine's crun: {peer['pod']}" if peer["pod"] else ""
        shown = [HEAD[0].replace(THEIRS, name), HEAD[1], *lines, "", told or "Pods are not compared; one started."]
        tables[name] = "\n".join(shown)
    return tables


def _of_peer(line: Line, kind: str) -> Line:
    """A line with what is wanted beside a kind of peer; our own memory and times are judged once, in the first table."""
    line = line._replace(most=None, least=None, said=line.said if line.ratio else "")
    if kind not in SHARES:
        return line
    share = SHARES[kind].get((line.test, line.measure))
    if share is None:
        return line._replace(ratio=None, said="")
    return line._replace(ratio=1 / share, said=f"at most {share:g} of its {'CPU' if 'cpu' in line.measure else 'time'}")


def _lines(report: dict[str, Any], peer: str, wanted: Iterable[Line]) -> list[str]:
    rows = {(row["test"], row["measure"]): row for row in report["results"]}
    words = {"containers": report["containers"], "pulled": PULLED[report["pulled"]]}
    lines = []
    for line in wanted:
        row = rows.get((line.test, line.measure.format(**words)))
        if row is None or (peer != THEIRS and peer not in row["daemons"]):
            continue
        if line.test in ("pull", "latency") and report["pulled"] != "many":
            line = line._replace(ratio=None, most=None, said="")  # what is wanted is said of many files
        lines.append(_line(line, row, line.label.format(**words), peer))
    return lines


def ratio(row: dict[str, Any], peer: str) -> tuple[float, float, float] | None:
    """Median, p10 and p90 of a row's pairs with a peer, turned so that more is better; None without pairs."""
    found = row["ratios"].get(peer)
    if not found:
        return None
    if not row["unit"].endswith("/s"):
        return found["p50"], found["p10"], found["p90"]
    return 1 / found["p50"], 1 / found["p90"], 1 / found["p10"]


def missed(report: dict[str, Any]) -> list[str]:
    """The labels of what was wanted and is not so."""
    found = [line.split("|")[1].strip() for line in table(report).splitlines() if line.endswith("| no |")]
    for name, shown in beside(report).items():
        found += [f"{line.split('|')[1].strip()} ({name})" for line in shown.splitlines() if line.endswith("| no |")]
    return found


def _line(line: Line, row: dict[str, Any], label: str, peer: str) -> str:
    values = {name: figure["p50"] for name, figure in row["daemons"].items()}
    own, other = values.get("ours"), values.get(peer)
    found = ratio(row, peer)
    shown = f"{_number(found[0])}x ({_number(found[1])}..{_number(found[2])})" if found else ""
    met = ""
    if line.ratio is not None and found:
        met = "yes" if found[0] >= line.ratio else "no"
    elif line.most is not None and own is not None:
        met = "yes" if own <= line.most else "no"
    elif line.least is not None and own is not None:
        met = "yes" if own >= line.least else "no"
    unit = row["unit"]
    return f"| {label} | {_value(own, unit)} | {_value(other, unit)} | {shown} | {line.said} | {met} |"


def _after(report: dict[str, Any]) -> str:
    memory = {name: entry.get("memory_after") for name, entry in report.get("daemons", {}).items()}
    if not memory or not all(memory.values()):
        return ""
    sizes = [_value(memory[name]["VmRSS"], "MiB") if name in memory else "" for name in ("ours", "containerd")]
    return f"| daemon (RSS), after all of the above | {sizes[0]} | {sizes[1]} | | | |"


def _primitives(found: dict[str, Any] | None) -> list[str]:
    """Our start beside the same work without a daemon."""
    if not found:
        return []
    over, bare = found["overhead"], found["bare"]
    steps = ", ".join(f"{step} {_number(values['p50'])}" for step, values in bare.items() if step != "start")
    calls = ", ".join(f"{call} {_number(values['p50'])}" for call, values in found["calls"].items())
    met = "yes" if over["of_medians"] <= OVERHEAD_MS else "no"
    return [
        f"| pod start, alternating with bare ones ({calls}) | {_value(found['daemon']['p50'], 'ms')} | | | | |",
        f"| – the bare primitives ({steps}) | {_value(bare['start']['p50'], 'ms')} | | | | |",
        f"| – overhead over them | {_value(over['of_medians'], 'ms')} | | | at most {OVERHEAD_MS:g} ms | {met} |",
    ]


def _pipeline(report: dict[str, Any]) -> list[str]:
    """Pulls beside their layers through a decompressor and tar: ours over it, times and CPU."""
    rows = {(row["test"], row["measure"]): row for row in report["results"]}
    lines = []
    for picture, program in report.get("pipeline", {}).items():
        for label, measure, bare, is_judged in BARE_LINES:
            row = rows[f"pipeline {picture}", measure]
            found = ratio(row, bare)
            assert found is not None
            over, low, high = (1 / each for each in (found[0], found[2], found[1]))
            said, met = "", ""
            if is_judged and picture == "many:gzip":
                said, met = f"at most {BARE:g}x", "yes" if over <= BARE else "no"
            own, other = (_value(row["daemons"][name]["p50"], row["unit"]) for name in ("ours", bare))
            shown = f"ours {_number(over)}x ({_number(low)}..{_number(high)})"
            label = label.format(program=program, picture=picture)
            lines.append(f"| {label} | {own} | {other} bare | {shown} | {said} | {met} |")
    return lines


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    if unit == "ms" and value >= 1000:
        value, unit = value / 1000, "s"
    return f"{_number(value)} {unit}"
