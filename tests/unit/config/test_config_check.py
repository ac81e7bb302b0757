"""Rules over values, and what settling makes of old names and low values."""

from pathlib import Path

import pytest

from criollo.config.load import Loaded, load
from criollo.errors import Invalid


def given_(**overrides: object) -> Loaded:
    """Settings with `runtime__log_level="debug"` as crio.runtime.log_level."""
    keys = {f"crio.{name.replace('__', '.')}": value for name, value in overrides.items()}
    return load(None, None, environ={}, overrides=keys, systemd=False)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("runtime__log_level", "wrong-level", "'info'"),
        ("runtime__log_filter", "([", "a regular expression"),
        ("runtime__cgroup_manager", "openrc", "'systemd' or 'cgroupfs'"),
        ("image__image_volumes", "bound", "'mkdir' or 'bind' or 'ignore'"),
        ("storage_driver", "zfs", "'overlay' or 'btrfs' or 'vfs'"),
        ("root", "var/lib", "absolute path"),
        ("root", "", "absolute path"),
        ("root", "/var/../etc", "absolute path"),
        ("runroot", "/run/a\nb", "absolute path"),
        ("log_dir", "logs", "absolute path"),
        ("api__listen", "unix:///run/x.sock", "absolute path"),
        ("api__listen", "/" + "x" * 107, "at most 107 bytes"),
        ("api__stream_address", "localhost", "an IP address"),
        ("api__stream_address", "127.0.0.1 ", "an IP address"),
        ("api__stream_port", "65536", "from 0 to 65535"),
        ("api__stream_port", "http", "from 0 to 65535"),
        ("api__stream_port", "", "from 0 to 65535"),
        ("api__stream_idle_timeout", "4 hours", "a duration"),
        ("api__stream_idle_timeout", "-1s", "a duration"),
        ("api__stream_enable_tls", True, "where stream_enable_tls is true"),
        ("api__stream_tls_ca", "ca.pem", "absolute path"),
        ("api__tls_min_version", "VersionTLS11", "'VersionTLS12' or 'VersionTLS13'"),
        ("api__tls_cipher_suites", ["RC4"], "one of TLS_ECDHE"),
        ("network__plugin_dirs", ["opt/cni"], "absolute path"),
        ("runtime__default_runtime", "kata", "there are: crun"),
        ("runtime__default_sysctls", ["net.ipv4.ip_forward = 1"], "without spaces"),
        ("runtime__default_ulimits", ["nofile=5:1"], "less than or equal"),
        ("runtime__default_capabilities", ["FLY"], "a capability"),
        ("runtime__additional_devices", ["/etc/passwd"], "is not a valid device"),
        ("runtime__default_env", ["PATH"], "NAME=value"),
        ("runtime__log_size_max", 5, "at least 8192"),
        ("runtime__infra_ctr_cpuset", "x", "a list of CPUs"),
        ("runtime__min_injected_gomaxprocs", -1, "0 or more"),
        ("image__default_transport", "oci:", "'docker://'"),
        ("runtime__conmon", "conmon", "absolute path"),
    ],
)
def test_value_that_cannot_be_is_refused(key: str, value: object, expected: str) -> None:
    with pytest.raises(Invalid, match=expected):
        given_(**{key: value})


def test_error_names_the_file_of_the_value(tmp_path: Path) -> None:
    (tmp_path / "x.conf").write_text('[crio.runtime]\nlog_level = "info"\n')
    (tmp_path / "d").mkdir()
    (tmp_path / "d/00-default").write_text('[crio.runtime]\nlog_level = "wrong-level"\n')
    with pytest.raises(Invalid, match=r"00-default: crio\.runtime\.log_level: got 'wrong-level'"):
        load(tmp_path / "x.conf", tmp_path / "d", environ={}, overrides={})


@pytest.mark.parametrize("name", ["PATH", "=x"])
def test_monitor_environment_is_pairs(name: str) -> None:
    with pytest.raises(Invalid, match="NAME=value"):
        given_(runtime__conmon_env=[name])


def test_old_monitor_names_fill_every_handler() -> None:
    found = given_(runtime__conmon="/bin/true", runtime__conmon_cgroup="pod", runtime__runtimes="runc:/bin/runc:/run/runc")
    for handler in found.settings.runtime.runtimes.values():
        assert (handler.monitor_path, handler.monitor_cgroup) == ("/bin/true", "pod")
    assert [warning for warning in found.warnings if "crio.runtime.conmon:" in warning] == [
        "--conmon: crio.runtime.conmon: deprecated; use monitor_path of a handler"
    ]


@pytest.mark.parametrize(("manager", "group"), [("cgroupfs", "my.slice"), ("systemd", "my"), ("systemd", "a/b.slice")])
def test_monitor_cgroup_fits_the_manager(tmp_path: Path, manager: str, group: str) -> None:
    text = f'[crio.runtime]\ncgroup_manager = "{manager}"\n[crio.runtime.runtimes.crun]\nmonitor_cgroup = "{group}"\n'
    (tmp_path / "x.conf").write_text(text)
    with pytest.raises(Invalid, match="monitor_cgroup"):
        load(tmp_path / "x.conf", None, environ={}, overrides={})


def test_low_timeouts_are_raised_with_a_warning(tmp_path: Path) -> None:
    text = "[crio.runtime]\nctr_stop_timeout = 1\n[crio.runtime.runtimes.crun]\ncontainer_create_timeout = 1\n"
    (tmp_path / "x.conf").write_text(text)
    found = load(tmp_path / "x.conf", None, environ={}, overrides={})
    assert found.settings.runtime.ctr_stop_timeout == 30
    assert found.settings.runtime.runtimes["crun"].container_create_timeout == 30
    assert len(found.warnings) == 2


def test_create_timeout_of_zero_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "x.conf").write_text("[crio.runtime.runtimes.crun]\ncontainer_create_timeout = 0\n")
    found = load(tmp_path / "x.conf", None, environ={}, overrides={})
    assert found.settings.runtime.runtimes["crun"].container_create_timeout == 240


def test_message_sizes_of_zero_are_the_default() -> None:
    found = given_(api__grpc_max_send_msg_size=0, api__grpc_max_recv_msg_size=-5).settings.api
    assert (found.grpc_max_send_msg_size, found.grpc_max_recv_msg_size) == (80 << 20, 80 << 20)


def test_old_plugin_dir_joins_the_new_list(tmp_path: Path) -> None:
    (tmp_path / "x.conf").write_text('[crio.network]\nplugin_dir = "/old/cni"\n')
    found = load(tmp_path / "x.conf", None, environ={}, overrides={})
    assert found.settings.network.plugin_dirs == ("/opt/cni/bin", "/usr/lib/cni", "/old/cni")
    assert "plugin_dirs" in found.warnings[0]


def test_empty_default_runtime_is_crun() -> None:
    assert given_(runtime__default_runtime="").settings.runtime.default_runtime == "crun"


def test_dead_key_says_what_to_use() -> None:
    assert "registries.conf" in given_(image__insecure_registries=["x:5000"]).warnings[0]


def test_runtime_type_that_is_not_driven_is_kept_with_a_warning() -> None:
    found = given_(runtime__runtimes="kata:/bin/kata:/run/kata:vm")
    assert found.settings.runtime.runtimes["kata"].runtime_type == "vm"
    assert "not driven yet" in found.warnings[0]


def test_cipher_suites_without_tls12_are_warned_of() -> None:
    suites = ["TLS_RSA_WITH_AES_128_GCM_SHA256"]
    loaded = given_(api__tls_min_version="VersionTLS13", api__tls_cipher_suites=suites)
    assert [line for line in loaded.warnings if "no effect with tls_min_version VersionTLS13" in line]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "activation_annotation"),
        ("activation_annotation = ''", "activation_annotation"),
        ("activation_annotation = 'a'\n[crio.runtime.workloads.w.resources]\ncpuset = '2-1'", "resources.cpuset"),
        ("activation_annotation = 'a'\n[crio.runtime.workloads.w.resources]\ncpushares = -1", "resources.cpushares"),
        ("activation_annotation = 'a'\n[crio.runtime.workloads.w.resources]\ncpuquota = 999", "resources.cpuquota"),
        (
            "activation_annotation = 'a'\n[crio.runtime.workloads.w.resources]\ncpuquota = 5000\ncpushares = 6000",
            "resources.cpuquota",
        ),
        ("activation_annotation = 'a'\n[crio.runtime.workloads.w.resources]\ncpuperiod = 999", "resources.cpuperiod"),
        ("activation_annotation = 'a'\n[crio.runtime.workloads.w.resources]\ncpuperiod = 2000000", "resources.cpuperiod"),
        ("activation_annotation = 'a'\n[crio.runtime.workloads.w.resources]\ncpulimit = -5", "resources.cpulimit"),
    ],
)
def test_a_workload_that_cannot_be_is_refused_with_its_key(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "x.conf").write_text(f"[crio.runtime.workloads.w]\n{text}\n")
    with pytest.raises(Invalid, match=rf"crio\.runtime\.workloads\.w\.{key}"):
        load(tmp_path / "x.conf", None, environ={}, overrides={})


def test_an_empty_path_switches_off_what_can_be_off() -> None:
    settings = given_(version_file="", clean_shutdown_file="").settings
    assert (settings.version_file, settings.clean_shutdown_file) == ("", "")
