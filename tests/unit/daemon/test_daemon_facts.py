"""The configuration in a verbose Status, with the names that tools read."""

import msgspec

from criollo.config.handlers import RuntimeHandler
from criollo.config.load import load
from criollo.config.settings import defaults
from criollo.daemon.facts import config_document


def test_time_limit_of_creates_is_told_by_handler_in_seconds() -> None:
    base = defaults(systemd=False)
    handlers = {**base.runtime.runtimes, "slow": RuntimeHandler(runtime_path="/bin/slow", container_create_timeout=300)}
    settings = msgspec.structs.replace(base, runtime=msgspec.structs.replace(base.runtime, runtimes=handlers))
    told = config_document(settings)["crio"]
    assert told["Runtimes"]["slow"]["ContainerCreateTimeout"] == 300
    assert told["Runtimes"][told["DefaultRuntime"]]["ContainerCreateTimeout"] == 240


def test_limit_that_is_too_low_is_told_as_it_holds() -> None:
    override = {"crio.runtime.runtimes": ["low:/bin/low:/run/low"]}
    loaded = load(None, None, environ={}, overrides=override)
    assert config_document(loaded.settings)["crio"]["Runtimes"]["low"] == {
        "RuntimePath": "/bin/low",
        "RuntimeType": "oci",
        "RuntimeRoot": "/run/low",
        "ContainerCreateTimeout": 240,
    }


def test_document_names_what_tools_ask_for() -> None:
    document = config_document(defaults(systemd=True))
    assert document["sandboxImage"].startswith("registry.k8s.io/pause")
    assert document["crio"]["CgroupManagerName"] == "systemd"
    assert {"Root", "RunRoot", "DefaultRuntime"} <= document["crio"].keys()
