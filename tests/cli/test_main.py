"""The `jaxdiff` command: dispatch, help, and which errors are one line."""

from collections.abc import Callable
import os
from pathlib import Path
import subprocess
import sys
import time
import types

from absl import flags
import pytest

import jaxdiff
from jaxdiff.cli import main as cli


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Register a function as the command `probe` and run it."""

    def call(function: Callable[[list[str]], int], *argv: str) -> int:
        module = types.ModuleType("probe_command")
        module.main = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "probe_command", module)
        monkeypatch.setitem(cli.COMMANDS, "probe", ("probe_command:main", "for the test"))
        return cli.main(["probe", *argv])

    monkeypatch.delenv("JAXDIFF_DEBUG", raising=False)
    return call


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(argv, capsys):
    assert cli.main(argv) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in cli.COMMANDS)


def test_version_is_the_package_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxdiff {jaxdiff.__version__}\n"


def test_misspelt_command_names_the_nearest_and_exits_2(capsys):
    assert cli.main(["trian"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("jaxdiff: error: unknown command 'trian'; did you mean 'train'? known: ")
    assert output.err.count("\n") == 1


def test_command_gets_its_arguments_and_gives_the_exit_code(run):
    seen: list[list[str]] = []
    assert run(lambda argv: seen.append(argv) or 1, "a", "--b=c") == 1
    assert seen == [["a", "--b=c"]]


def test_help_command_asks_the_command_for_its_help(run):
    seen: list[list[str]] = []
    run(lambda argv: 0)
    sys.modules["probe_command"].main = lambda argv: seen.append(argv) or 0  # type: ignore[attr-defined]
    assert cli.main(["help", "probe"]) == 0
    assert seen == [["--help"]]


def test_raised_file_error_is_one_line_with_the_file(run, capsys, tmp_path):
    def opens_a_missing_file(argv: list[str]) -> int:
        return len((tmp_path / "absent.hdf5").read_bytes())

    assert run(opens_a_missing_file) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxdiff: error: ")
    assert "absent.hdf5" in error
    assert "Traceback" not in error


def test_absl_flag_error_is_one_line(run, capsys):
    def wants_a_flag(argv: list[str]) -> int:
        values = flags.FlagValues()
        flags.DEFINE_integer("size", 1, "", flag_values=values)
        values(["jaxdiff", *argv])
        return 0

    assert run(wants_a_flag, "--size=big") == 2
    assert "--size=big" in capsys.readouterr().err


def test_error_that_jaxdiff_raises_is_one_line_unless_debugging(run, capsys, monkeypatch):
    def asks_for_a_wrong_command(argv: list[str]) -> int:
        return cli.command("swep")([])

    assert run(asks_for_a_wrong_command) == 2
    assert "did you mean 'sweep'?" in capsys.readouterr().err
    monkeypatch.setenv("JAXDIFF_DEBUG", "1")
    with pytest.raises(KeyError, match="swep"):
        run(asks_for_a_wrong_command)


@pytest.mark.parametrize("bug", [lambda argv: {}["missing"], lambda argv: int("x"), lambda argv: 1 // 0])
def test_bug_keeps_its_traceback(run, bug):
    with pytest.raises((KeyError, ValueError, ZeroDivisionError)):
        run(bug)


def test_interrupt_exits_130(run, capsys):
    def interrupted(argv: list[str]) -> int:
        raise KeyboardInterrupt

    assert run(interrupted) == 130
    assert "interrupted" in capsys.readouterr().err


def test_help_takes_less_than_a_second_and_imports_nothing_heavy():
    code = "import sys; from jaxdiff.cli.main import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    environment = {**os.environ, "PYTHONPATH": str(Path(jaxdiff.__file__).parents[1])}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    seconds = time.perf_counter() - start
    assert not {"jax", "numpy", "absl", "ml_collections"} & set(done.stderr.split())
    assert seconds < 1.0
