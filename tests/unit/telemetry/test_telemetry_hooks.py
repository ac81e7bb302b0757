"""What is off is not loaded."""

import subprocess
import sys


def test_metrics_and_traces_are_off_and_not_loaded() -> None:
    code = (
        "import sys, criollo.daemon.main\n"
        "from criollo.telemetry import hooks\n"
        "assert hooks.metrics is None and hooks.tracer is None\n"
        "unwanted = ('metrics', 'node_metrics', 'tracer', 'otlp')\n"
        "assert not [name for name in unwanted if f'criollo.telemetry.{name}' in sys.modules], sys.modules\n"
        "assert not [name for name in ('tracing', 'metrics_port', 'selfsigned') if f'criollo.daemon.{name}' in sys.modules]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
