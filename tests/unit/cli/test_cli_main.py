"""The command `crio` as a person meets it: output, one-line errors, exit codes."""

import json
import re
import subprocess
import sys
import weakref
from pathlib import Path

import click
import pytest

from criollo.cli import flags
from criollo.cli.main import command, run
from criollo.config.keys import Works
from criollo.config.load import Loaded
from criollo.config.places import all_settings

NONE = ["-c", "", "-d", ""]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("CONTAINER_"):
            monkeypatch.delenv(name)


def effective(text: str) -> list[str]:
    """The lines of a configuration that are no comments, tables or empty."""
    return [line for line in text.split("\n") if line and not line.startswith(("#", "["))]


def test_config_without_files_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*NONE, "config"]) == 0
    assert effective(capsys.readouterr().out) == []


def test_config_shows_files_environment_and_flags(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c").write_text("[crio]\nlog_dir = '/logs'\n")
    monkeypatch.setenv("CONTAINER_PIDS_LIMIT", "77")
    assert run(["-c", str(tmp_path / "c"), "-d", "", "--root", "/r", "config"]) == 0
    output = capsys.readouterr()
    assert effective(output.out) == ['root = "/r"', 'log_dir = "/logs"', "pids_limit = 77"]
    assert "CONTAINER_PIDS_LIMIT: crio.runtime.pids_limit: deprecated" in output.err


def test_config_file_can_come_from_the_environment(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c").write_text("[crio]\nlog_dir = '/logs'\n")
    monkeypatch.setenv("CONTAINER_CONFIG", str(tmp_path / "c"))
    assert run(["-d", "", "config"]) == 0
    assert "/logs" in capsys.readouterr().out


def test_config_default_prints_every_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*NONE, "--root", "/elsewhere", "config", "--default"]) == 0
    lines = effective(capsys.readouterr().out)
    assert 'root = "/var/lib/criollo"' in lines
    assert len(lines) > 150


@pytest.mark.parametrize(
    ("arguments", "key", "line"),
    [
        (["--read-only"], "read_only", "read_only = true"),
        (["--drop-infra-ctr=false"], "drop_infra_ctr", "drop_infra_ctr = false"),
        (["-l", "debug"], "log_level", 'log_level = "debug"'),
        (["-r", "/x"], "root", 'root = "/x"'),
        (["--default-capabilities", "CHOWN,KILL"], "default_capabilities", 'default_capabilities = ["CHOWN", "KILL"]'),
        (["--default-env", "A=1,2", "--default-env", "B=3"], "default_env", 'default_env = ["A=1,2", "B=3"]'),
        (["--cni-config-dir", "/n"], "network_dir", 'network_dir = "/n"'),
        (["--tz", "Local"], "timezone", 'timezone = "Local"'),
    ],
)
def test_flag_sets_its_key(capsys: pytest.CaptureFixture[str], arguments: list[str], key: str, line: str) -> None:
    assert run([*NONE, *arguments, "config"]) == 0
    assert effective(capsys.readouterr().out) == [line]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--log-level", "loud", "config"], "--log-level"),
        (["--ctr-stop-timeout", "foo", "config"], "--ctr-stop-timeout: got 'foo', expected a whole number"),
        (["--pids-limit", "99999999999999999999", "config"], "--pids-limit"),
        (["--read-only=maybe", "config"], "--read-only"),
        (["--log-format", "xml", "config"], "'text' or 'json'"),
        (["-c", "/not/there", "config"], "/not/there"),
        (["--runtimes", "x", "config"], "--runtimes"),
    ],
)
def test_wrong_value_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert run([*NONE, *arguments]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("crio: ")
    assert output.err.count("\n") == 1
    assert said in output.err


@pytest.mark.parametrize("arguments", [["nosuchverb"], ["--nosuchflag"], ["config", "--what"], ["--root"]])
def test_senseless_command_line_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chexk"], "No such command 'chexk'. Did you mean 'check'? See 'crio --help'."),
        (["config", "--defualt"], "No such option '--defualt'. Did you mean '--default'? See 'crio config --help'."),
        (["status", "containerz"], "No such command 'containerz'. Did you mean 'containers'? See 'crio status --help'."),
        (["status", "pulls", "--x"], "No such option '--x'. See 'crio status pulls --help'."),
        (
            ["status", "pulls", "--cancel"],
            "--cancel wants the ID of a pull, and goes without --follow. See 'crio status pulls --help'.",
        ),
        (["help", "wip"], "No such command 'wip'. Did you mean 'wipe'? See 'crio --help'."),
    ],
)
def test_a_senseless_command_line_points_to_the_help_of_its_verb(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert run([*NONE, *arguments]) == 2
    assert capsys.readouterr().err == f"crio: {said}\n"


def test_status_without_a_verb_is_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*NONE, "status"]) == 2
    assert capsys.readouterr().err.startswith("Usage: crio status ")


def test_status_knows_short_names_as_cri_o_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*NONE, "status", "i", "--help"]) == 0


def test_version_names_python_and_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version", "-j"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == "criollo"
    assert found["pythonVersion"] == sys.version.split()[0]
    assert "protobuf" in found["libraries"]
    assert run(["version", "--verbose"]) == 0
    assert "msgspec" in capsys.readouterr().out
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("crio version ")


def test_help_shows_every_verb_and_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    for _, setting in all_settings():
        if setting.flag:
            assert re.search(rf"--{setting.flag}[ ,]", text)
    assert run(["help", "config"]) == 0
    assert "--default" in capsys.readouterr().out
    assert run(["help", "nothing"]) == 2


def test_every_working_setting_of_a_fixed_table_has_a_flag() -> None:
    without = [setting.name for _, setting in all_settings() if not setting.flag and setting.key.works is Works.LIVE]
    assert without == ["plugin_dir"]


def test_flags_and_variables_are_unique() -> None:
    names = [setting.flag for _, setting in all_settings() if setting.flag]
    variables = [name for _, setting in all_settings() for name in setting.environment]
    assert len(names) == len(set(names))
    assert len(variables) == len(set(variables))
    parameters = [option for parameter in command().params for option in parameter.opts]
    assert len(parameters) == len(set(parameters))


def test_bare_booleans_become_values_only_before_two_dashes() -> None:
    assert flags.with_values(["--read-only", "--", "--read-only"]) == ["--read-only=true", "--", "--read-only"]


def test_no_verb_serves_with_settings_of_this_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("crun", "conmon"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    seen: list[Loaded] = []
    stand_in = type(sys)("criollo.daemon.main")
    stand_in.serve = lambda loaded, read: seen.extend((loaded, read())) or 7  # type: ignore[attr-defined,func-returns-value]
    monkeypatch.setitem(sys.modules, "criollo.daemon.main", stand_in)
    arguments = [*NONE, "--listen", "/run/x.sock", "--log-format", "json", "--cgroup-manager", "cgroupfs"]
    assert run(arguments) == 7
    assert seen[0].settings.api.listen == "/run/x.sock"
    assert seen[0].settings.runtime.runtimes["crun"].runtime_path == str(tmp_path / "crun")
    assert seen[0].log_format == "json"
    assert seen[1] == seen[0]


def test_daemon_keeps_nothing_of_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("crun", "conmon"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    made: list[weakref.ref[click.Command]] = []
    left: list[object] = []

    def remembered() -> click.Group:
        found = command()
        made.append(weakref.ref(found))
        return found

    stand_in = type(sys)("criollo.daemon.main")
    stand_in.serve = lambda loaded, read: left.extend(ref() for ref in made) or 0  # type: ignore[attr-defined,func-returns-value]
    monkeypatch.setitem(sys.modules, "criollo.daemon.main", stand_in)
    monkeypatch.setattr("criollo.cli.main.command", remembered)
    assert run([*NONE, "--cgroup-manager", "cgroupfs"]) == 0
    assert left == [None]


def test_verbs_do_not_load_the_daemon() -> None:
    heavy = "asyncio h2 google.protobuf urllib3 sqlite3 ssl h11 yaml zstandard isal".split()
    code = (
        "import sys; from criollo.cli.main import run; run(['-c','','-d','','config']);"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_reader_that_goes_away_is_no_traceback() -> None:
    code = "import sys; from criollo.cli.main import run; sys.exit(run(['-c','','-d','','config']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.close()
        assert child.stderr is not None
        assert b"Traceback" not in child.stderr.read()
