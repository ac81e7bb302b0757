"""crio explain: what a person reads, and refusals."""

from pathlib import Path

import pytest

from criollo.cli.explain import lines
from criollo.cli.main import run
from criollo.telemetry.told import Explanation, Mentioned, Move, StepTold, Waiting, WorkTold

NETWORK = StepTold(kind="stage", name="sandbox network", after_s=0.001)
BRIDGE = StepTold(kind="program", name="ADD", after_s=0.002, pid=7, argv=("/opt/cni/bin/bridge",))


def test_who_then_what_is_waited_for_then_what_happened() -> None:
    failed = StepTold(kind="program", name="delete", after_s=0.0, seconds=1.5, argv=("/crun",), status=1, said="busy")
    told = Explanation(
        kind="pod sandbox", id="abc", name="k8s_web", title="shop/web", state="CREATING", trouble="it is stuck",
        moves=(Move(1_000_000_000, "CREATING"),),
        works=(
            WorkTold(what="run pod sandbox", begun_ns=2_000_000_000, steps=(NETWORK, BRIDGE)),
            WorkTold(what="stop", begun_ns=500_000_000, seconds=0.25, error="no", left_out=3, steps=(failed,)),
        ),
        waiting=(Waiting(work="run pod sandbox", stage="sandbox network", step=BRIDGE),),
        last_words={"/crun": "busy"},
        containers=(Mentioned(kind="container", id="c1", title="app", state="RUNNING"),),
        others=(Mentioned(kind="pod sandbox", id="old", title="shop/web", state="REMOVED"),),
    )  # fmt: skip
    text = "\n".join(lines(told))
    for wanted in (
        "pod sandbox shop/web (abc): CREATING",
        "TROUBLE: it is stuck",
        "WAITING: run pod sandbox, stage sandbox network: ADD, process 7: /opt/cni/bin/bridge",
        "run pod sandbox: goes on",
        "stop: 250.0ms: FAILED: no",
        "exit status 1",
        "it said: busy",
        "and 3 more",
        "/crun: busy",
        "container app (c1): RUNNING",
        "the same words also mean:",
    ):
        assert wanted in text, wanted
    assert text.index("stop: ") < text.index("  CREATING\n") < text.index("run pod sandbox: goes on")


def test_without_a_daemon_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = tmp_path / "crio.conf"
    conf.write_text(f'[crio.api]\nlisten = "{tmp_path}/socket"\n')
    assert run(["-c", str(conf), "-d", "", "explain", "web"]) == 1
    assert "cannot explain web: no daemon listens" in capsys.readouterr().err
