"""A prey out of a run: trained in mpe-tag-prey, hunted in mpe-tag."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.cli.main import main
from jaxdiff.cli.restore import read_plans, restore_pack
from jaxdiff.cli.settings import base_config
from jaxdiff.cli.task import make_env
from jaxdiff.envs.mpe import tasks
from jaxdiff.io import stamp
from jaxdiff.io.folders import RunDir

CONFIG = """
from jaxdiff.cli.settings import base_config


def get_config():
    config = base_config("td3_bc")
    config.env, config.dataset, config.normalise_obs = "mpe-tag-prey", "", True
    config.batch_size, config.num_updates, config.chunk = 8, 4, 2
    config.online.num_envs, config.online.replay_capacity, config.online.warmup = 4, 64, 4
    config.eval_interval, config.checkpoint_interval, config.eval_episodes, config.record_episodes = 4, 4, 2, 0
    config.model.actor_hidden = config.model.critic_hidden = (4,)
    return config
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, compiled_once):
    folder = tmp_path_factory.mktemp("prey")
    (folder / "small.py").write_text(CONFIG)
    assert main(["train", f"--config={folder / 'small.py'}", "--lanes=map", f"--workdir={folder / 'run'}"]) == 0
    return folder / "run"


def hunt(prey, env="mpe-tag"):
    config = base_config("bc").to_dict()
    return {**config, "env": env, "mpe": {**config["mpe"], "prey": str(prey)}}


def test_the_prey_acts_as_eval_would_have_it(run):
    env = make_env(hunt(run))
    assert (env.spec.name, env.spec.num_agents) == ("mpe-tag-trained", 3)
    (plan,) = read_plans(RunDir(run))
    options = {"env": None, "episodes": 1, "checkpoint": "last", "overrides": [{}]}
    restored = restore_pack(RunDir(run), plan, stamp.read_stamp(run), **options)
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    obs = tasks.observe_prey(tasks.TASKS["tag"], state)
    lane = jax.tree.map(lambda leaf: leaf[0], restored.lanes)
    action = jax.jit(restored.task.algorithm.act)(jax.random.key(0), lane.state, obs[None], ())[0][0, 0]
    after, _ = jax.jit(env.step)(state, jnp.zeros((3, 2)))
    # Nobody touches anybody at this start: force 16 on a mass of 1 for 0.1 s, and no faster than 1.3.
    velocity = 1.6 * np.clip(np.asarray(action), -1.0, 1.0)
    velocity *= min(1.0, 1.3 / np.linalg.norm(velocity))
    assert np.linalg.norm(velocity) > 1e-3
    np.testing.assert_allclose(after.velocity[3], velocity, rtol=1e-4)


def test_a_run_that_is_no_such_prey_is_refused(run, tmp_path):
    with pytest.raises(
        ValueError, match=r"was trained in mpe-tag-prey, and the prey of mpe-world is trained in mpe-wor"
    ):
        make_env(hunt(run, "mpe-world"))
    with pytest.raises(ValueError, match="has no use in config.env=mpe-tag-prey, where the prey is who learns"):
        make_env(hunt(run, "mpe-tag-prey"))
    with pytest.raises(ValueError, match=r"is a folder without run.json; give a run of mpe-tag-prey"):
        make_env(hunt(tmp_path))


def altered(run, folder, change):
    """A folder with the run's small files, where pack.json was changed; no checkpoint is needed to refuse it."""
    (pack,) = (run / "packs").iterdir()
    there = folder / "packs" / pack.name
    there.mkdir(parents=True)
    plan = json.loads((pack / "pack.json").read_text())
    change(plan)
    (there / "pack.json").write_text(json.dumps(plan))
    (folder / "run.json").write_bytes((run / "run.json").read_bytes())
    return there / "done.json"


def test_an_unfinished_run_and_one_of_several_members_are_refused(run, tmp_path):
    done = altered(run, tmp_path, lambda plan: plan["members"].append(plan["members"][0]))
    with pytest.raises(ValueError, match="has not finished; let it"):
        make_env(hunt(tmp_path))
    done.write_text("{}")
    with pytest.raises(ValueError, match="has 2 members, and a prey is one policy"):
        make_env(hunt(tmp_path))


def test_a_policy_that_remembers_is_refused(run, monkeypatch):
    from jaxdiff.cli import trained_prey

    trained_prey._restored.cache_clear()
    real = trained_prey.restore_pack

    def remembering(*arguments, **options):
        restored = real(*arguments, **options)
        algorithm = restored.task.algorithm._replace(init_memory=lambda shape: jnp.zeros(shape))
        return dataclasses.replace(restored, task=dataclasses.replace(restored.task, algorithm=algorithm))

    monkeypatch.setattr(trained_prey, "restore_pack", remembering)
    with pytest.raises(ValueError, match="td3_bc remembers what it saw, or decides on 1 actions at once"):
        make_env(hunt(run))
