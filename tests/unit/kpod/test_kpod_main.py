import subprocess
import sys
from pathlib import Path

import click
import pytest

from criollo.kpod.main import VERBS, _Kpod, run
from criollo.kpod.session import Options, load_settings

HEAVY = ("google", "h2", "yaml", "criollo.cri", "criollo.engine", "criollo.daemon")


def test_help_imports_neither_protobuf_nor_the_engine() -> None:
    code = (
        "import sys; from criollo.kpod.main import run; run(['--help']); "
        f"print([m for m in sys.modules if m.startswith({HEAVY!r})], file=sys.stderr)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stderr == "[]\n"
    assert "Fetch an image" in said.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: kpod {verb} ")


def test_verbs_are_called_as_the_table_says() -> None:
    group = _Kpod("kpod")
    context = click.Context(group)
    assert [group.get_command(context, name).name for name in VERBS] == list(VERBS)  # type: ignore[union-attr]
    assert group.get_command(context, "nonsense") is None


def test_without_a_verb_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Verbs:" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_a_flag_that_a_verb_has_not_is_named_with_its_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--zz9"]) == 2
    assert capsys.readouterr().err == f"kpod: No such option '--zz9'. See 'kpod {verb} --help'.\n"


def test_a_verb_that_is_not_there_is_named_with_its_likes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["puhs"]) == 2
    assert capsys.readouterr().err == "kpod: No such command 'puhs'. Did you mean 'push' or 'ps'? See 'kpod --help'.\n"


def test_the_configuration_is_that_of_crio(tmp_path: Path) -> None:
    (tmp_path / "c").write_text('[crio.api]\nlisten = "/a"\n')
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").write_text('[crio]\nlog_dir = "/b"\n')
    settings = load_settings(Options(config=str(tmp_path / "c"), config_dir=str(tmp_path / "d"))).settings
    assert (settings.api.listen, settings.log_dir) == ("/a", "/b")
    assert load_settings(Options(config=str(tmp_path / "c"), config_dir="", listen="/z")).settings.api.listen == "/z"


def test_the_page_names_every_verb() -> None:
    page = Path(__file__).parents[3].joinpath("docs/kpod.md").read_text()
    assert [name for name in VERBS if f"`kpod {name}" not in page] == []
