"""Files, environment and flags become settings; what cannot be is refused with file and key."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criollo.config.files import DROP_IN_LIMIT, FILE_LIMIT_BYTES, drop_ins, find_default, parse_toml, read_toml
from criollo.config.keys import Works
from criollo.config.load import Loaded, load
from criollo.config.places import all_settings, dotted
from criollo.config.settings import defaults
from criollo.config.template import toml_value
from criollo.errors import Invalid

Loader = Callable[..., Loaded]


@pytest.fixture
def loaded(tmp_path: Path) -> Loader:
    """Load one file with this text, and drop-ins by name."""

    def run(text: str = "", drop: dict[str, str] | None = None, **given_: object) -> Loaded:
        conf, directory = tmp_path / "criollo.conf", tmp_path / "criollo.conf.d"
        conf.write_text(text)
        directory.mkdir(exist_ok=True)
        for name, content in (drop or {}).items():
            (directory / name).parent.mkdir(exist_ok=True, parents=True)
            (directory / name).write_text(content)
        options: dict[str, object] = {"environ": {}, "overrides": {}, "systemd": False, **given_}
        return load(conf, directory, **options)  # type: ignore[arg-type]

    return run


def test_nothing_given_is_the_defaults() -> None:
    found = load(None, None, environ={}, overrides={}, systemd=True)
    assert found.settings == defaults(systemd=True)
    assert (found.warnings, found.origins) == ((), {})


def test_cgroup_manager_follows_the_host() -> None:
    assert defaults(systemd=True).runtime.cgroup_manager == "systemd"
    assert defaults(systemd=False).runtime.cgroup_manager == "cgroupfs"


def test_drop_ins_win_in_lexical_order_with_any_name(loaded: Loader) -> None:
    drop = {
        "00-default": "[crio.runtime]\npids_limit = 1234\n",
        "01-overwrite": "[crio.runtime]\npids_limit = 5678\n",
        "00-sub/zz": "[crio.api]\nlisten = '/run/deep.sock'\n",
    }
    found = loaded("[crio.runtime]\npids_limit = 1\nread_only = true\n", drop)
    assert found.settings.runtime.pids_limit == 5678
    assert found.settings.runtime.read_only
    assert found.settings.api.listen == "/run/deep.sock"
    assert found.origins["crio.runtime.pids_limit"].endswith("01-overwrite")
    assert [path.name for path in found.files] == ["criollo.conf", "00-default", "zz", "01-overwrite"]


def test_environment_beats_files_and_flags_beat_environment(loaded: Loader) -> None:
    text = "[crio]\nroot = '/a'\nrunroot = '/a'\nlog_dir = '/a'\n"
    found = loaded(text, environ={"CONTAINER_ROOT": "/b", "CONTAINER_RUNROOT": "/b"}, overrides={"crio.root": "/c"})
    assert (found.settings.root, found.settings.runroot, found.settings.log_dir) == ("/c", "/b", "/a")
    assert found.origins["crio.root"] == "--root"
    assert found.origins["crio.runroot"] == "CONTAINER_RUNROOT"


@pytest.mark.parametrize(
    ("name", "key", "text", "value"),
    [
        ("CONTAINER_ATTACH_SOCKET_DIR", "container_attach_socket_dir", "/x", "/x"),
        ("CONTAINER_EXITS_DIR", "container_exits_dir", "/x", "/x"),
        ("CONTAINER_STOP_TIMEOUT", "ctr_stop_timeout", "60", 60),
        ("CONTAINER_DEFAULT_CAPABILITIES", "default_capabilities", "CHOWN, KILL", ("CHOWN", "KILL")),
        ("CONTAINER_READ_ONLY", "read_only", "1", True),
        ("CONTAINER_DROP_INFRA_CTR", "drop_infra_ctr", "False", False),
        ("DISABLE_HOSTPORT_MAPPING", "disable_hostport_mapping", "true", True),
    ],
)
def test_environment_names_of_crio_work(name: str, key: str, text: str, value: object) -> None:
    found = load(None, None, environ={name: text}, overrides={}, systemd=False)
    assert getattr(found.settings.runtime, key) == value


def test_empty_environment_variable_is_not_set() -> None:
    assert load(None, None, environ={"CONTAINER_ROOT": ""}, overrides={}, systemd=False).origins == {}


def test_runtimes_flag_adds_handlers() -> None:
    found = load(
        None,
        None,
        environ={},
        overrides={"crio.runtime.runtimes": ["runc:/bin/runc:/run/r", "k.ata:/bin/k:/run/k:vm:true:/etc/k:1GiB"]},
        systemd=False,
    )
    kata = found.settings.runtime.runtimes["k.ata"]
    assert found.settings.runtime.runtimes["runc"].runtime_root == "/run/r"
    assert (kata.runtime_type, kata.privileged_without_host_devices, kata.container_min_memory.bytes) == ("vm", True, 1 << 30)
    assert set(found.settings.runtime.runtimes) == {"crun", "runc", "k.ata"}


@pytest.mark.parametrize("text", ["runc", "runc:/x", "a:b:c:d:e:f:g:h", "../x:/a:/b"])
def test_runtimes_flag_refuses_other_shapes(text: str) -> None:
    with pytest.raises(Invalid):
        load(None, None, environ={"CONTAINER_RUNTIMES": text}, overrides={}, systemd=False)


def test_handler_of_two_files_gets_the_keys_of_both(loaded: Loader) -> None:
    found = loaded(
        "[crio.runtime.runtimes.runc]\nruntime_path = '/bin/runc'\n",
        {"50": "[crio.runtime.runtimes.runc]\nmonitor_path = '/bin/conmon'\n"},
    )
    runc = found.settings.runtime.runtimes["runc"]
    assert (runc.runtime_path, runc.monitor_path) == ("/bin/runc", "/bin/conmon")
    assert "crun" in found.settings.runtime.runtimes


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ('[crio.runtime]\nenable_pod_events = "on"', "crio.runtime.enable_pod_events", "true or false"),
        ("[crio.runtime]\npids_limit = true", "crio.runtime.pids_limit", "a whole number"),
        ("[crio.runtime]\npids_limit = 1.5", "crio.runtime.pids_limit", "a whole number"),
        ("[crio.runtime]\npids_limit = 99999999999999999999", "crio.runtime.pids_limit", "a whole number"),
        ("[crio.runtime]\npids_limit = 0x" + "f" * 5000, "crio.runtime.pids_limit", "a whole number"),
        ("[crio]\nroot = 1", "crio.root", "a string"),
        ("[crio]\nroot = {a.b.c = 1}", "crio.root", "a string"),
        ("[crio.network]\nplugin_dirs = '/x'", "crio.network.plugin_dirs", "a list of strings"),
        ("[crio.network]\nplugin_dirs = ['/x', 1]", "crio.network.plugin_dirs", "a list of strings"),
        ("[crio]\napi = 5", "crio.api", "a table"),
        ("crio = 5", "crio", "a table"),
        ("[crio.runtime]\nruntimes = 5", "crio.runtime.runtimes", "a table of tables"),
        ("[crio.runtime.runtimes]\nrunc = 5", "crio.runtime.runtimes.runc", "a table"),
        ("[crio.runtime.runtimes.'../x']", "crio.runtime.runtimes", "a name of letters"),
        ("[crio.runtime.runtimes.x]\ndefault_annotations = {a = 1}", "crio.runtime.runtimes.x.default_annotations", "strings"),
        ("[crio.image]\npull_progress_timeout = '5'", "crio.image.pull_progress_timeout", "a duration"),
        ("[crio]\nroot = '/a\\u0000'".replace("'", '"'), "crio.root", "without NUL"),
    ],
)
def test_wrong_type_is_refused_with_file_key_and_expected(loaded: Loader, text: str, key: str, expected: str) -> None:
    with pytest.raises(Invalid) as caught:
        loaded(text)
    assert "criollo.conf" in str(caught.value)
    assert key in str(caught.value)
    assert expected in str(caught.value)


def test_every_key_refuses_a_value_of_another_type() -> None:
    for place, setting in all_settings():
        wrong: object = 1 if isinstance(setting.default, (str, tuple)) else [1]
        if not setting.flag:
            continue
        with pytest.raises(Invalid):
            load(None, None, environ={}, overrides={dotted(place): wrong}, systemd=False)


def test_every_key_takes_its_default_from_a_file(loaded: Loader) -> None:
    lines: dict[str, list[str]] = {}
    for place, setting in all_settings():
        if setting.name != "cgroup_manager":
            lines.setdefault(dotted(place[:-1]), []).append(f"{setting.name} = {toml_value(setting.default)}")
    text = "\n".join(f"[{table}]\n" + "\n".join(keys) for table, keys in lines.items())
    found = loaded(text)
    assert found.settings == defaults(systemd=False)
    assert found.warnings == ()
    assert len(found.origins) > 120


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("[crio]\nrot = '/x'", "crio.root"),
        ("[crio.runtime]\npid_limit = 5", "crio.runtime.pids_limit"),
        ("[crio]\nlog_level = 'debug'", "crio.runtime.log_level"),
        ("[crio.runtime.runtimes.runc]\nruntime_pth = '/x'", "crio.runtime.runtimes.<name>.runtime_path"),
        ("[crioo]\nx = 1", "crio, the table"),
        ("[crio.imag]\nx = 1", "crio.image"),
    ],
)
def test_unknown_key_gets_one_warning_with_the_nearest_key(loaded: Loader, text: str, near: str) -> None:
    found = loaded(text)
    assert len(found.warnings) == 1
    assert "criollo.conf" in found.warnings[0]
    assert near in found.warnings[0]


def test_key_without_effect_yet_gets_one_warning_when_it_differs(loaded: Loader) -> None:
    found = loaded("[crio.runtime]\nlog_to_journald = true\nno_pivot = false\n")
    assert found.warnings == (f"{found.files[0]}: crio.runtime.log_to_journald: {Works.LATER}",)


def test_key_that_is_not_needed_gets_no_warning(loaded: Loader) -> None:
    assert loaded("[crio.runtime]\npinns_path = '/usr/bin/pinns'\n").warnings == ()


def test_a_workload_is_taken_without_a_warning(loaded: Loader) -> None:
    found = loaded(
        "[crio.runtime.workloads.fast]\nactivation_annotation = 'a'\n[crio.runtime.workloads.fast.resources]\ncpushares = 5\n"
    )
    assert found.settings.runtime.workloads["fast"].resources.cpushares == 5
    assert found.warnings == ()


def test_missing_named_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no such file"):
        load(tmp_path / "none.conf", None, environ={}, overrides={})


def test_missing_named_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"none\.d"):
        load(None, tmp_path / "none.d", environ={}, overrides={})


def test_own_files_come_before_those_of_crio(tmp_path: Path) -> None:
    assert find_default(tmp_path) == (None, None)
    (tmp_path / "crio/crio.conf.d").mkdir(parents=True)
    (tmp_path / "crio/crio.conf").touch()
    assert find_default(tmp_path) == (tmp_path / "crio/crio.conf", tmp_path / "crio/crio.conf.d")
    (tmp_path / "criollo/criollo.conf.d").mkdir(parents=True)
    assert find_default(tmp_path) == (None, tmp_path / "criollo/criollo.conf.d")


def test_files_of_crio_bring_its_socket_with_them(tmp_path: Path) -> None:
    conf = tmp_path / "crio/crio.conf"
    conf.parent.mkdir()
    conf.touch()
    assert load(conf, None, environ={}, overrides={}).settings.api.listen == "/var/run/crio/crio.sock"
    conf.write_text('[crio.api]\nlisten = "/run/other.sock"\n')
    assert load(conf, None, environ={}, overrides={}).settings.api.listen == "/run/other.sock"


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbf[crio]\n",
        b"\xff\xfe[\x00c\x00",
        b"[crio]\nroot = '\xff'\n",
        b"[crio]\n[crio]\n",
        b"[crio]\nroot = '/a'\nroot = '/b'\n",
        b"a = " + b"[" * 5000,
        b"a = " + b"{b=" * 5000,
        b"a = " + b"9" * 5000,
        b"[crio\n",
        b"\x00",
    ],
)
def test_hostile_toml_is_refused_with_the_file(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.conf"
    path.write_bytes(raw)
    with pytest.raises(Invalid, match=r"bad\.conf"):
        load(path, None, environ={}, overrides={})


@given(st.binary(max_size=200) | st.text(alphabet="[]{}=.,'\"\n#a1 crio-_:", max_size=200).map(str.encode))
def test_any_bytes_give_a_document_or_invalid(raw: bytes) -> None:
    try:
        document = parse_toml(raw, "x.conf")
    except Invalid as error:
        document, said = {}, str(error)
    else:
        said = "x.conf: "
    assert isinstance(document, dict)
    assert said.startswith("x.conf: ")


_leaf = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=True)
_value = st.recursive(
    _leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner), max_leaves=6
)
_names = st.sampled_from([dotted(place) for place, _ in all_settings()])


@settings(max_examples=300)
@given(_names, _value)
def test_any_value_of_any_key_is_taken_or_invalid(name: str, value: object) -> None:
    with contextlib.suppress(Invalid):
        load(None, None, environ={}, overrides={name: value}, systemd=False)


def test_file_that_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dir").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("fifo", "dir", "loop"):
        with pytest.raises(Invalid, match=name):
            read_toml(tmp_path / name)


def test_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"#" * (FILE_LIMIT_BYTES + 1))
    with pytest.raises(Invalid, match="at most"):
        read_toml(tmp_path / "big")


def test_links_to_directories_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/again").symlink_to(tmp_path / "d")
    (tmp_path / "real").write_text("")
    (tmp_path / "d/file").symlink_to(tmp_path / "real")
    assert list(drop_ins(tmp_path / "d")) == [tmp_path / "d/file"]


def test_too_many_drop_ins_are_refused(tmp_path: Path) -> None:
    for number in range(DROP_IN_LIMIT + 1):
        (tmp_path / f"{number}").touch()
    with pytest.raises(Invalid, match="at most"):
        list(drop_ins(tmp_path))


def test_drop_in_that_vanished_is_skipped(tmp_path: Path) -> None:
    assert read_toml(tmp_path / "gone") is None


def test_directory_of_drop_ins_that_vanishes_while_others_are_read_is_skipped(tmp_path: Path) -> None:
    for place in ("d/1", "d/2/file", "d/3"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    reading = drop_ins(tmp_path / "d")
    assert next(reading) == tmp_path / "d/1"
    shutil.rmtree(tmp_path / "d/2")  # as the update of a mounted ConfigMap does
    assert list(reading) == [tmp_path / "d/3"]


def test_unknown_override_is_refused() -> None:
    for key in ("crio.nothing", "root", "crio.runtime", "crio.api.listen.x"):
        with pytest.raises(Invalid):
            load(None, None, environ={}, overrides={key: "x"}, systemd=False)
