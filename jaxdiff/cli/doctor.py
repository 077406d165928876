"""`jaxdiff doctor`: is this machine ready, and if not, which line makes it so.

Prints versions, devices, memory, the compilation cache, the data folder, the optional extras, and a one-second matrix
product. Exits 0 when jaxdiff can run here, 1 when a line says FAIL.
"""

from collections.abc import Mapping
import dataclasses
import importlib.metadata
import os
from pathlib import Path
import platform
import re
import shutil
import sys
import time

from absl import flags

import jaxdiff
from jaxdiff.cli import config, config_files, machine

PYTHON_RANGE = ((3, 11), (3, 14))  # first supported, first unsupported; as in pyproject.toml
JAX_RANGE = ((0, 10, 2), (0, 13))
CORE = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "distrax", "brax", "mujoco", "mujoco-mjx", "jumanji")
# extra -> (any of these distributions shows that it is installed, who wants it)
EXTRAS = {
    "cuda": (("jax-cuda13-plugin", "jax-cuda12-plugin"), "NVIDIA GPUs"),
    "tpu": (("libtpu",), "Cloud TPUs"),
    "mujoco": (("imageio",), "real MuJoCo through Gymnasium: the D4RL locomotion tasks"),
    "minari": (("minari",), "Minari datasets"),
    "marl": (("jaxmarl",), "JaxMARL's environments"),
    "pettingzoo": (("pettingzoo",), "evaluation in PettingZoo's environments"),
    "ode": (("diffrax",), "adaptive steps for the probability-flow ODE"),
    "wandb": (("wandb",), "logging to Weights & Biases"),
    "mlflow": (("mlflow-skinny", "mlflow"), "logging to MLflow"),
    "optuna": (("optuna",), "`jaxdiff tune`"),
    "storage": (("s3fs", "gcsfs"), "a --workdir on a bucket"),
    "export": (("pyarrow",), "Parquet tables of a study"),
    "slurm": (("submitit",), "job arrays on Slurm"),
    "ray": (("ray",), "tasks on a Ray cluster"),
    "bench": (("torch",), "timing plans beside PyTorch"),
    "dev": (("pytest",), "running the tests"),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    status: str  # "ok", "note" or "FAIL"
    subject: str
    text: str


def main(argv: list[str]) -> int:
    """Run the examination and print it."""
    config.parse_flags(argv, flags.FlagValues(), usage=__doc__ or "")
    versions = _installed()
    findings = [*_software(versions), *_folders(os.environ), *_extras(versions)]
    broken = any(finding.status == "FAIL" for finding in findings)
    if not broken:  # a wrong jax may not even import
        findings += [*_devices(), _speed()]
    for finding in findings:
        print(f"{finding.status:4}  {finding.subject:18} {finding.text}")
    print(f"\njaxdiff {jaxdiff.__version__} " + ("cannot run here; see FAIL above." if broken else "can run here."))
    return 1 if broken else 0


def known_problems(versions: Mapping[str, str], python: tuple[int, ...]) -> list[tuple[str, str]]:
    """Combinations that are known not to work.

    Args:
      versions: distribution name, lower case with dashes -> version.
      python: version of the interpreter, e.g. (3, 11).

    Returns:
      Pairs of subject and what to do.
    """
    found = []
    if not PYTHON_RANGE[0] <= python[:2] < PYTHON_RANGE[1]:
        found.append(("python", f"{_dots(python)} is outside >=3.11,<3.14; make a virtual environment with 3.12."))
    jax = versions.get("jax")
    if jax is None or not JAX_RANGE[0] <= _release(jax) < JAX_RANGE[1]:
        found.append(("jax", f"{jax or 'missing'}, wanted >=0.10.2,<0.13: {_pip('jax>=0.10.2,<0.13')}"))
    elif _release(versions.get("jaxlib", "0")) > _release(jax):
        found.append(("jaxlib", f"{versions['jaxlib']} is newer than jax {jax}: {_pip(f'jaxlib=={jax}')}"))
    for name in ("mujoco", "mujoco-mjx"):
        if _release(versions.get(name, "0")) >= (4,):
            what = "4.0.0 has a solver bug and its mjx is not released"
            found.append((name, f"{versions[name]}: {what}: {_pip('mujoco>=3.8.1,<4', 'mujoco-mjx>=3.8.1,<4')}"))
    if {"tensorflow-probability", "tfp-nightly"} <= set(versions):
        fix = f"{sys.executable} -m pip uninstall tensorflow-probability tfp-nightly, then {_pip('tfp-nightly')}"
        found.append(("tfp-nightly", f"tensorflow-probability is in the same folder: {fix}"))
    return found


def _software(versions: Mapping[str, str]) -> list[Finding]:
    problems = known_problems(versions, sys.version_info[:3])
    missing = [name for name in CORE if name not in versions and name not in dict(problems)]
    listed = ", ".join(f"{name} {versions[name]}" for name in CORE if name in versions)
    return [
        Finding("ok", "python", f"{platform.python_version()} at {sys.executable}"),
        Finding("ok", "packages", listed),
        *(Finding("FAIL", subject, text) for subject, text in problems),
        *(Finding("FAIL", name, f"missing: {_pip(name)}") for name in missing),
    ]


def _folders(environment: Mapping[str, str]) -> list[Finding]:
    data = Path(environment.get("JAXDIFF_DATA") or "~/.cache/jaxdiff/data").expanduser()
    findings = [
        _writable("compilation cache", machine.compilation_cache(environment), "JAX_COMPILATION_CACHE_DIR"),
        _writable("data folder", data, "JAXDIFF_DATA"),
    ]
    shipped = config_files.shipped()
    status = "ok" if shipped else "FAIL"
    return [*findings, Finding(status, "shipped configs", ", ".join(shipped) or "none: install jaxdiff again")]


def _writable(subject: str, folder: Path, variable: str) -> Finding:
    """Whether `folder` can be written, or made if it does not exist."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return Finding("ok", subject, str(folder) + ("" if existing == folder else " (made when needed)"))
    return Finding("FAIL", subject, f"{folder} cannot be written; set {variable} to a folder that can")


def _extras(versions: Mapping[str, str]) -> list[Finding]:
    findings = []
    for extra, (names, purpose) in EXTRAS.items():
        present = [f"{name} {versions[name]}" for name in names if name in versions]
        if present:
            findings.append(Finding("ok", f"extra {extra}", ", ".join(present)))
        else:
            findings.append(Finding("note", f"extra {extra}", f"for {purpose}: {_pip(*_requirements(extra))}"))
    return findings


def _requirements(extra: str) -> list[str]:
    """What the extra asks for, from the installed package's metadata; a checkout may have none, or older ones."""
    if "jaxdiff" not in _installed():
        return [f"jaxdiff[{extra}]"]
    marker = re.compile(rf"""^(.*?)\s*;.*extra\s*==\s*['"]{extra}['"]""")
    lines = importlib.metadata.requires("jaxdiff") or []
    return [match.group(1) for match in map(marker.match, lines) if match] or [f"jaxdiff[{extra}]"]


def _devices() -> list[Finding]:
    import jax  # the rest of the examination works without it

    devices = jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    findings = [Finding("ok", "devices", f"{len(devices)} x {', '.join(kinds)} ({jax.default_backend()})")]
    if jax.default_backend() == "cpu" and shutil.which("nvidia-smi"):
        line = f"there is an NVIDIA driver but JAX sees no GPU: {_pip(*_requirements('cuda'))}"
        findings.append(Finding("note", "devices", line))
    statistics = devices[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        free = statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
        findings.append(Finding("ok", "device memory", f"{free / 2**30:.1f} GiB free for JAX"))
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return [*findings, Finding("ok", "host", f"{os.cpu_count()} cores, {host:.1f} GiB")]


def _speed(size: int = 1024, seconds: float = 1.0) -> Finding:
    """Float32 product of two square matrices, 2 size**3 operations each, for about a second."""
    import jax
    import jax.numpy as jnp

    multiply = jax.jit(lambda x: x @ x / size)
    x = multiply(jnp.ones((size, size), jnp.float32)).block_until_ready()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        x = multiply(x).block_until_ready()
        count += 1
    rate = 2 * size**3 * count / (time.perf_counter() - start)
    return Finding("ok", "matrix product", f"{rate / 1e9:.0f} GFLOP/s ({size} x {size}, float32)")


def _installed() -> dict[str, str]:
    names = ((dist.metadata["Name"], dist.version) for dist in importlib.metadata.distributions())
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in names if name}


def _release(version: str) -> tuple[int, ...]:
    """The numbers before any suffix: "0.12.0rc1" -> (0, 12, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def _dots(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _pip(*requirements: str) -> str:
    listed = " ".join(f"'{requirement}'" for requirement in requirements)
    return f"{sys.executable} -m pip install {listed}"
