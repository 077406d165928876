"""The wheel: builds without a network, and carries the shipped configs."""

from pathlib import Path
import subprocess
import sys
import tomllib
import zipfile

import pytest

import jaxdiff
from jaxdiff.cli import doctor

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_carries_every_module_and_every_shipped_config(wheel):
    inside = set(wheel.namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "jaxdiff").rglob("*.py")}
    configs = {f"jaxdiff/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "experiments").rglob("*.py")}
    assert modules <= inside
    assert configs <= inside
    assert {f"jaxdiff/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "launch").rglob("*.py")} <= inside
    assert "jaxdiff/py.typed" in inside
    assert not [name for name in inside if name.startswith(("tests/", "experiments/", "launch/"))]


def test_installed_wheel_finds_its_own_configs(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    code = f"""import sys; sys.path.insert(0, {str(tmp_path / "site")!r})
from jaxdiff.cli import config_files
for name, path in config_files.shipped().items():
    print(name, path)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env={"PATH": ""})
    found = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    expected = {path.stem for path in (ROOT / "experiments").glob("*.py") if not path.stem.startswith("_")}
    assert expected <= set(found)
    assert all(Path(path).is_relative_to(tmp_path / "site" / "jaxdiff" / "experiments") for path in found.values())


def test_installed_wheel_launches(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    code = f"""import sys; sys.path.insert(0, {str(tmp_path / "site")!r})
from jaxdiff.cli.main import main
assert main(["launch", "tpu_vm", "DIR", "--name=n", "--zone=z", "--dry_run"]) == 0
print(sys.modules["jaxdiff.launch.tpu_vm"].__file__, "jax" in sys.modules, "launch" in sys.modules)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env={"PATH": ""})
    assert done.stdout.splitlines()[1] == f"{tmp_path / 'site' / 'jaxdiff' / 'launch' / 'tpu_vm.py'} False False"


def test_version_is_written_once_and_the_same():
    assert PROJECT["version"] == jaxdiff.__version__


def test_doctor_examines_the_ranges_of_pyproject():
    def dots(bound):
        return ".".join(map(str, bound))

    low, high = map(dots, doctor.PYTHON_RANGE)
    assert PROJECT["requires-python"] == f">={low},<{high}"
    low, high = map(dots, doctor.JAX_RANGE)
    assert f"jax>={low},<{high}" in PROJECT["dependencies"]
    assert set(doctor.EXTRAS) == set(PROJECT["optional-dependencies"])


def test_constraints_pin_every_direct_dependency():
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    names = {requirement.split(">")[0].split("[")[0].lower() for requirement in wanted}
    assert names <= pinned
