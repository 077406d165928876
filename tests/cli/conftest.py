"""A study that trains in seconds: a bandit with two numbers to act by, four updates, networks of four units."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxdiff import sweep
from jaxdiff.cli import evaluate
from jaxdiff.cli import run as commands
from jaxdiff.cli import task as tasks
from jaxdiff.envs.probes import bandit_corners

STUDY = """
from jaxdiff.cli.settings import base_config


def get_config(dataset):
    config = base_config("diffusion_ql")
    config.env, config.dataset, config.normalise_obs = "probe-bandit", dataset, True
    config.model.policy.hidden = config.model.critic_hidden = (4,)
    config.model.policy.num_levels = config.model.policy.num_steps = 2
    config.model.num_candidates = 2
    config.batch_size, config.num_updates, config.eval_interval, config.checkpoint_interval = 8, 4, 2, 2
    config.eval_episodes = 16
    return config


def sweep_methods():
    yield {"algorithm": "diffusion_bc"}
    yield {"hparams.q_weight": 1.0, "seed": 0}
    yield {"hparams.q_weight": 1.0, "seed": 1}
"""


@pytest.fixture(scope="package")
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Programs compile once: a cache on disk is shared.

    Without a cache of their own the commands would keep compiled programs in the home folder.
    """
    before = jax.config.jax_compilation_cache_dir
    with pytest.MonkeyPatch.context() as patch:
        if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
            folder = str(tmp_path_factory.mktemp("compiled"))
            patch.setenv("JAX_COMPILATION_CACHE_DIR", folder)
            jax.config.update("jax_compilation_cache_dir", folder)
        yield
        jax.config.update("jax_compilation_cache_dir", before)


# What a loop does with a program, and no part of it.
SCHEDULE = ("num_updates", "chunk", "eval_interval", "checkpoint_interval")


class TaskStore:
    """Tasks and evaluations with the programs that were traced for them, by the settings that make a program."""

    def __init__(self) -> None:
        self.make, self.make_evaluation = tasks.make_task, evaluate.make_evaluation
        self.made: dict[str, Any] = {}

    def get(self, config: Mapping[str, Any]) -> tasks.Task:
        return self._once(_program(config), lambda: self.make(config))

    def evaluation(self, task: tasks.Task, config: Mapping[str, Any], mode: str) -> Callable[..., Any]:
        units = [] if task.statistics is None else [part.tolist() for part in task.statistics]
        program = f"evaluation of {_program(config)} by {mode} in {units}"
        return self._once(program, lambda: self.make_evaluation(task, config, mode))

    def _once(self, program: str, make: Callable[[], Any]) -> Any:
        if program not in self.made:
            self.made[program] = make()
        return self.made[program]

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Commands that train the same program, or act by it again, find it traced."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tasks, "make_task", self.get)
            patch.setattr(evaluate, "make_evaluation", self.evaluation)
            yield


def _program(config: Mapping[str, Any]) -> str:
    return sweep.program_hash({key: value for key, value in config.items() if key not in SCHEDULE})


@pytest.fixture(scope="package")
def task_store() -> TaskStore:
    return TaskStore()


@pytest.fixture(scope="module")
def traced_once(task_store: TaskStore) -> Iterator[None]:
    """For files whose commands train one task again and again, or let its policies act."""
    with task_store.shared():
        yield


@pytest.fixture(scope="package")
def bandit_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An npz under D4RL's names: noisy corners of probe-bandit."""
    action, reward = bandit_corners(0, num_points=64)
    path = tmp_path_factory.mktemp("data") / "corners.npz"
    obs, no, yes = np.zeros((64, 1), np.float32), np.zeros(64, bool), np.ones(64, bool)
    np.savez(path, observations=obs, next_observations=obs, actions=action, rewards=reward, terminals=yes, timeouts=no)
    return path


@pytest.fixture(scope="package")
def study(tmp_path_factory: pytest.TempPathFactory, bandit_data: Path, compiled_once: None) -> list[str]:
    """Arguments of `jaxdiff sweep` without --workdir: 3 members in 2 groups."""
    path = tmp_path_factory.mktemp("study") / "study.py"
    path.write_text(STUDY)
    return [f"--config={path}:{bandit_data}", "--sweep=methods", "--lanes=vmap"]


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory, study: list[str], task_store: TaskStore) -> Path:
    """The run folder of the study. Tests read it and may add files, never change what is there."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    with task_store.shared():
        assert commands.sweep([*study, f"--workdir={folder}"]) == 0
    return folder
