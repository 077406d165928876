"""A run that was killed and started again ends with the bits of one that was not.

What is killed here, with a signal that cannot be caught, and goes on is a real process of the real command.
"""

from collections.abc import Iterator
import functools
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
import pytest

import jaxdiff
from jaxdiff import envs, train
from jaxdiff.cli import main as cli
from jaxdiff.cli import run as commands
from jaxdiff.cli.settings import make_settings
from jaxdiff.cli.task import make_algorithm
from jaxdiff.envs.probes import recall_episodes
from jaxdiff.io import files
from jaxdiff.io.checkpoint import Checkpoints
from jaxdiff.io.folders import PackDir, RunDir

STUDY = """
from jaxdiff.cli.settings import base_config


def get_config(dataset):
    config = base_config("diffusion_bc")
    config.env, config.dataset, config.normalise_obs = "probe-recall", dataset, True
    config.model.policy.hidden = (16,)
    config.model.policy.num_levels, config.model.policy.num_steps = 5, 1
    config.hparams.lr_decay_steps = 100.0
    config.batch_size, config.num_updates, config.chunk = 8, 105, 7
    config.eval_interval, config.checkpoint_interval = 30, 10
    config.eval_episodes, config.record_episodes = 2, 1
    return config


def sweep_rate():
    yield {"hparams.lr": 1e-3, "seed": 0}
    yield {"hparams.lr": 3e-4, "seed": 1}
"""
COMMAND = "import sys; from jaxdiff.cli.main import main; sys.exit(main(sys.argv[1:]))"
pytestmark = pytest.mark.usefixtures("traced_once")


class Command:
    """`jaxdiff sweep` of the study above, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "study.py").write_text(STUDY)
        np.savez(folder / "recall.npz", **recall_episodes(0, num_episodes=64))
        data = f"{folder / 'study.py'}:{folder / 'recall.npz'}"
        self.argv = ["sweep", f"--config={data}", "--sweep=rate", "--lanes=map"]
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(Path(jaxdiff.__file__).parents[1]),
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        }

    def start(self, name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, *self.argv, f"--workdir={self.folder / name}"],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, name: str) -> Path:
        """To the end; the run folder."""
        process = self.start(name)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert "report.html" in out
        return self.folder / name

    def run_and_kill(self, name: str, after_step: int) -> Path:
        """Until a checkpoint of that step or a later one is whole; the run folder."""
        process, deadline = self.start(name), time.monotonic() + 300
        try:
            while newest_checkpoint(self.folder / name) < after_step:
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < deadline, "no checkpoint came"
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        return self.folder / name


def newest_checkpoint(folder: Path) -> int:
    return max((int(card.parent.name) for card in folder.glob("packs/*/checkpoints/*/card.json")), default=-1)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory, compiled_once: None) -> Command:
    return Command(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def undisturbed(command: Command) -> Path:
    """In this process, whose programs are those of the others."""
    folder = command.folder / "undisturbed"
    assert cli.main([*command.argv, f"--workdir={folder}"]) == 0
    return folder


def packs_of(folder: Path) -> Iterator[PackDir]:
    run = RunDir(folder)
    for name in run.list_packs():
        yield run.pack(name)


def assert_equal_runs(first: Path, second: Path) -> None:
    """Every number on disk but the clocks."""
    assert RunDir(first).list_packs() == RunDir(second).list_packs()
    for there, here in zip(packs_of(first), packs_of(second), strict=True):
        assert_equal_packs(there, here)


def assert_equal_packs(there: PackDir, here: PackDir) -> None:
    for old, new in ((there.train, here.train), (there.eval, here.eval), (there.rollouts, here.rollouts)):
        a, b = files.read_npz(old), files.read_npz(new)
        assert a.keys() == b.keys()
        for column in a.keys() - {"wall_seconds"}:
            np.testing.assert_array_equal(a[column], b[column], err_msg=f"{new.name}: {column}")
    plans, ends = ([files.read_json(getattr(d, name)) for d in (there, here)] for name in ("pack_json", "done"))
    assert plans[0]["members"] == plans[1]["members"]
    assert plans[0]["lanes"] == plans[1]["lanes"]
    assert ends[0]["nonfinite"] == ends[1]["nonfinite"]
    (a, steps), (b, other_steps) = saved(there), saved(here)
    assert steps == other_steps
    for old, new in zip(a, b, strict=True):
        np.testing.assert_array_equal(old, new)


def saved(folder: PackDir) -> tuple[list[np.ndarray], dict[int, Any]]:
    """The arrays of the last checkpoint, and which steps were kept with what score."""
    plan = files.read_json(folder.pack_json)
    config, count = plan["config"], len(plan["members"])
    algorithm = make_algorithm(config, envs.make(config["env"]).spec, None)
    hparams = jax.tree.map(lambda value: np.full(count, value, np.float32), make_settings(config)[1])
    init = jax.vmap(functools.partial(train.init_lane, algorithm))
    like = jax.eval_shape(init, hparams, np.zeros(count, np.int32))
    with Checkpoints(folder.checkpoints) as checkpoints:
        lanes = checkpoints.restore(like)
        cards = {step: folder.checkpoints / str(step) / "card.json" for step in checkpoints.steps()}
    lanes = lanes.replace(key=jax.random.key_data(lanes.key))
    scores = {step: files.read_json(card)["score"] for step, card in cards.items()}
    return [np.asarray(leaf) for leaf in jax.tree.leaves(lanes)], scores


def test_killed_and_resumed_equals_undisturbed(command, undisturbed):
    folder = command.run_and_kill("killed", after_step=20)
    (pack,) = packs_of(folder)
    assert not pack.is_done()
    assert 20 <= newest_checkpoint(folder) < 105
    assert_equal_runs(undisturbed, command.run("killed"))
    assert list(files.read_npz(pack.eval)["step"]) == [30, 60, 90, 105]
    clock = files.read_npz(pack.train)["wall_seconds"]
    assert (np.diff(clock) > 0).all()  # goes on from where it was, instead of starting at zero again


def test_the_comparison_sees_what_a_wrong_resume_would_change(undisturbed):
    (pack,) = packs_of(undisturbed)
    columns = files.read_npz(pack.train)
    assert len(np.unique(columns["bc_loss"])) == columns["bc_loss"].size
    arrays, scores = saved(pack)
    assert sum(array.size for array in arrays) > 1000
    assert max(scores) == 105


def test_a_score_belongs_to_the_state_that_was_evaluated(undisturbed):
    (pack,) = packs_of(undisturbed)
    rows = files.read_npz(pack.eval)
    wanted = dict(zip(rows["step"].tolist(), rows["scores"].mean(axis=(1, 2)).tolist(), strict=True))
    for step, score in saved(pack)[1].items():
        assert score == pytest.approx(wanted[step], rel=1e-5) if step in wanted else score is None
    assert len(saved(pack)[1]) >= 2


def again(study: list[str], folder: Path) -> None:
    assert commands.sweep([*study, f"--workdir={folder}"]) == 0


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A finished run of two packs, four updates each, checkpoints at two and four."""
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    return folder


def test_a_finished_run_is_left_alone(trained, study, copy):
    before = {path: path.stat().st_mtime_ns for path in copy.glob("packs/**/*") if path.is_file()}
    again(study, copy)
    assert {path: path.stat().st_mtime_ns for path in copy.glob("packs/**/*") if path.is_file()} == before


def test_a_lost_and_a_damaged_checkpoint_give_way_to_the_one_before(trained, study, copy):
    """The first as after a kill between the metric tables and the state: rows that it does not know come again."""
    first, second = packs_of(copy)
    shutil.rmtree(first.checkpoints / "4")
    parts = [path for path in (second.checkpoints / "4").rglob("*") if path.is_file()]
    largest = max(parts, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(content)
    for pack in (first, second):
        pack.done.unlink()
        assert list(files.read_npz(pack.train)["step"]) == [2, 4]
    again(study, copy)
    assert_equal_runs(trained, copy)


def test_a_pack_whose_only_checkpoint_is_damaged_starts_over(trained, study, copy):
    first, _ = packs_of(copy)
    first.done.unlink()
    shutil.rmtree(first.checkpoints / "4")
    largest = max((p for p in (first.checkpoints / "2").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(content)
    again(study, copy)
    assert_equal_runs(trained, copy)


def test_a_pack_without_a_checkpoint_starts_over_and_a_finished_one_is_left_alone(trained, study, copy):
    first, second = packs_of(copy)
    second.done.unlink()
    shutil.rmtree(second.checkpoints)
    before = first.done.stat().st_mtime_ns
    again(study, copy)
    assert first.done.stat().st_mtime_ns == before
    assert_equal_runs(trained, copy)
