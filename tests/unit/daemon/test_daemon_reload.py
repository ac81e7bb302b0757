"""Which keys change in a running daemon, and what holds afterwards."""

import msgspec

from criollo.config.handlers import RuntimeHandler
from criollo.config.settings import Settings, defaults
from criollo.daemon.reload import changes, merged


def with_runtime(settings: Settings, **values: object) -> Settings:
    return msgspec.structs.replace(settings, runtime=msgspec.structs.replace(settings.runtime, **values))


def test_changes_are_named_with_their_new_values() -> None:
    old = defaults(systemd=False)
    crun = msgspec.structs.replace(old.runtime.runtimes["crun"], runtime_path="/bin/crun")
    new = with_runtime(old, log_level="debug", runtimes={**old.runtime.runtimes, "crun": crun})
    assert changes(old, new) == {"crio.runtime.log_level": "debug", "crio.runtime.runtimes.crun.runtime_path": "/bin/crun"}
    assert changes(old, old) == {}


def test_keys_that_are_gone_are_changes() -> None:
    old = defaults(systemd=False)
    more = with_runtime(old, runtimes={**old.runtime.runtimes, "kata": RuntimeHandler()})
    gone = changes(more, old)
    assert gone
    assert all(key.startswith("crio.runtime.runtimes.kata.") for key in gone)
    assert set(gone.values()) == {None}


def test_what_holds_is_the_new_where_it_may_change_and_the_old_elsewhere() -> None:
    old = defaults(systemd=False)
    runtimes = {"crun": RuntimeHandler(container_create_timeout=300)}
    new = with_runtime(old, log_filter="x", pids_limit=7, cgroup_manager="systemd", runtimes=runtimes)
    held = merged(old, new).runtime
    assert (held.log_filter, held.runtimes) == ("x", runtimes)
    assert (held.pids_limit, held.cgroup_manager) == (old.runtime.pids_limit, old.runtime.cgroup_manager)
