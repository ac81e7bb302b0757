"""The texts that others look for: word for word what the tests of CRI-O grep."""

from criollo.telemetry import texts


def test_texts_are_as_tools_look_for_them() -> None:
    assert "Stopping container ID with stop signal(15) timed out." in texts.STOP_TIMED_OUT.format("ID", 15)
    assert texts.STOP_SIGNAL.format("SIGINT") == "Override stop signal to SIGINT"
    assert texts.CREATION_TIMEOUT.format("30") == "Container creation timeout (30s)"
    assert texts.CDI_ERRORS == "CDI registry has errors"
    assert texts.MONITOR_STOPPED.format("ID").startswith("Conmon for container ID")
