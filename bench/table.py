"""The figures of a run as a table in Markdown.

Ratios are medians of neighbouring pairs, turned so that above 1 is better for ours: containerd / ours for times, CPU and
memory, ours / containerd for rates.
"""

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
    Line("ExecSync of /bin/true", "exec", "ExecSync"),
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
    Line("pull, {pulled}", "pull", "PullImage", ratio=1 / 0.6, said="at most 0.6 of its time"),
    Line("– CPU, all processes", "pull", "cpu all", ratio=1 / 0.6, said="at most 0.6 of its CPU"),
    Line("– peak memory (PSS), all processes", "pull", "peak PSS"),
    Line("remove that image, CPU", "pull", "cpu all of RemoveImage"),
    Line("Version, unary call", "idle", "Version"),
    Line("Status", "idle", "Status"),
    Line("ListContainers, {containers} containers", "list", "ListContainers {containers}"),
    Line("ContainerStatus", "list", "ContainerStatus"),
    Line("ListContainerStats", "list", "ListContainerStats"),
    Line("monitors (PSS) per pod of five containers", "list", "monitors PSS/pod"),
    Line("daemon (RSS), idle", "idle", "RSS of the daemon", most=45, said="at most 45 MiB"),
    Line("– with helpers (PSS)", "idle", "PSS of all processes"),
)
PULLED: Final = {"many": "55,000 files in six layers", "tiny": "one small layer"}
OVERHEAD_MS: Final = 8.0
HEAD: Final = ("| measure | ours | containerd | better by (p10..p90) | wanted | met |", "|---|---|---|---|---|---|")


def table(report: dict[str, Any]) -> str:
    """The table of a run's report (see `report` in `__main__`); lines without figures are left out."""
    rows = {(row["test"], row["measure"]): row for row in report["results"]}
    words = {"containers": report["containers"], "pulled": PULLED[report["pulled"]]}
    lines = list(HEAD)
    for line in LINES:
        measure = line.measure.format(**words)
        if line.test == "pull" and report["pulled"] != "many":
            line = line._replace(ratio=None, said="")  # what is wanted is said of many files
        if row := rows.get((line.test, measure)):
            lines.append(_line(line, row, line.label.format(**words)))
    lines += [_after(report), *_primitives(report.get("primitives"))]
    return "\n".join(each for each in lines if each)


def ratio(row: dict[str, Any]) -> tuple[float, float, float] | None:
    """Median, p10 and p90 of a row's pairs, turned so that more is better; None without pairs."""
    found = row.get("ratio")
    if not found:
        return None
    if not row["unit"].endswith("/s"):
        return found["p50"], found["p10"], found["p90"]
    return 1 / found["p50"], 1 / found["p90"], 1 / found["p10"]


def missed(report: dict[str, Any]) -> list[str]:
    """The labels of what was wanted and is not so."""
    return [line.split("|")[1].strip() for line in table(report).splitlines() if line.endswith("| no |")]


def _line(line: Line, row: dict[str, Any], label: str) -> str:
    values = {name: figure["p50"] for name, figure in row["daemons"].items()}
    own, other = values.get("ours"), values.get("containerd")
    found = ratio(row)
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


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    if unit == "ms" and value >= 1000:
        value, unit = value / 1000, "s"
    return f"{_number(value)} {unit}"
