"""Bodies shared out among agents: index sets against brax's own models, without compiling any physics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.envs import mabrax, make
from jaxdiff.envs.quiet import quiet_loading
from jaxdiff.types import Env, Spec, TimeStep

# Per task, joints of every agent.
SHARES = {
    "halfcheetah-2x3": [["bthigh", "bshin", "bfoot"], ["fthigh", "fshin", "ffoot"]],
    "halfcheetah-6x1": [["bthigh"], ["bshin"], ["bfoot"], ["fthigh"], ["fshin"], ["ffoot"]],
    "ant-2x4": [["hip_1", "ankle_1", "hip_2", "ankle_2"], ["hip_3", "ankle_3", "hip_4", "ankle_4"]],
    "ant-4x2": [[f"hip_{i}", f"ankle_{i}"] for i in (1, 2, 3, 4)],
    "hopper-3x1": [["thigh"], ["leg"], ["foot"]],
    "walker2d-2x3": [["thigh", "leg", "foot"], ["thigh_left", "leg_left", "foot_left"]],
}
# Edges between joints, written out by hand.
EDGES = {
    "halfcheetah": ["bfoot bshin", "bshin bthigh", "bthigh fthigh", "fthigh fshin", "fshin ffoot"],
    "hopper": ["thigh leg", "leg foot"],
    "walker2d": ["foot leg", "leg thigh", "thigh thigh_left", "thigh_left leg_left", "leg_left foot_left"],
    "ant": [
        *(f"hip_{i} ankle_{i}" for i in (1, 2, 3, 4)),
        *("hip_1 hip_2", "hip_1 hip_3", "hip_1 hip_4", "hip_2 hip_3", "hip_2 hip_4", "hip_3 hip_4"),
    ],
}
OBS_DIM = {"halfcheetah": 17, "hopper": 11, "walker2d": 17, "ant": 27}


def within(body, start, k):
    """Joints at most k edges from one of `start`, by walking."""
    reached = set(start)
    for _ in range(k):
        reached |= {joint for edge in EDGES[body] if reached & set(edge.split()) for joint in edge.split()}
    return reached


@pytest.fixture(scope="module")
def models():
    """Body -> (joint names by position in q, and in qd, names of what actions drive), as brax's own files have them."""
    from brax import envs
    import mujoco

    found = {}
    with jax.numpy_rank_promotion("allow"), quiet_loading():
        for body in EDGES:
            system = envs.get_environment(body, backend="spring").sys
            names = {
                joint: mujoco.mj_id2name(system.mj_model, mujoco.mjtObj.mjOBJ_JOINT, joint).removesuffix("_joint")
                for joint in range(system.mj_model.njnt)
            }
            position = {int(system.mj_model.jnt_qposadr[j]): name for j, name in names.items()}
            velocity = {int(system.mj_model.jnt_dofadr[j]): name for j, name in names.items()}
            driven = [position[int(q)] for q in system.actuator.q_id]
            found[body] = (position, velocity, driven, system.q_size(), system.qd_size())
    return found


@pytest.mark.parametrize("body", EDGES)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_the_tables_are_those_of_braxs_models(body, models):
    position, velocity, driven, width, speeds = models[body]
    parents, actuators, root_positions, root_velocities = mabrax.BODIES[body]
    hidden = width - root_positions - len(parents)  # x, or x and y, which observations leave out
    assert hidden == (2 if body == "ant" else 1)
    names = list(parents)
    assert [position[hidden + root_positions + j] for j in range(len(names))] == names
    assert [velocity[root_velocities + j] for j in range(len(names))] == names
    assert tuple(driven) == actuators
    assert root_velocities + len(names) == speeds
    assert root_positions + root_velocities + 2 * len(names) == OBS_DIM[body]


def picked(obs, index):
    """[.., A, o] of numbers [.., O]; 0 where an agent has fewer than others."""
    return np.where(index < 0, 0.0, obs[..., index])


@pytest.mark.parametrize("task", SHARES)
def test_observations_are_split_as_the_index_says(task):
    parts = mabrax.factorise(task.split("-")[0], len(SHARES[task]))
    obs = np.random.default_rng(0).normal(size=(2, 3, OBS_DIM[task.split("-")[0]])).astype(np.float32)
    np.testing.assert_array_equal(parts.split_obs(jnp.asarray(obs)), picked(obs, parts.obs_index))


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("obsk", [0, 1, 2, 9])
@pytest.mark.parametrize("task", SHARES)
def test_an_agent_sees_the_joints_within_reach_and_no_others(task, obsk, root):
    """Every number of the body is moved by itself: who notices?"""
    body = task.split("-")[0]
    parts = mabrax.factorise(body, len(SHARES[task]), obsk=obsk, root=root)
    parents, _, positions, velocities = mabrax.BODIES[body]
    names, count = list(parents), len(parents)
    label = ["root"] * positions + names + ["root"] * velocities + names
    assert len(label) == positions + velocities + 2 * count
    seen = picked(np.eye(len(label)), parts.obs_index)  # [O moved, A, o]
    for i, own in enumerate(SHARES[task]):
        near = within(body, own, obsk) | ({"root"} if root else set())
        np.testing.assert_array_equal(seen[:, i].any(axis=1), [name in near for name in label])
        assert seen[:, i].sum(axis=1).max() == 1  # nothing twice
        width = len(own)
        np.testing.assert_array_equal(
            seen[positions + np.array([names.index(name) for name in own]), i, :width], np.eye(width)
        )
    assert (seen != 0).any(axis=(0, 1)).all()  # somebody uses every number


@pytest.mark.parametrize("task", SHARES)
def test_agents_drive_their_own_joints(task):
    body = task.split("-")[0]
    parts = mabrax.factorise(body, len(SHARES[task]))
    assert [list(own) for own in parts.joints] == SHARES[task]
    actuators = mabrax.BODIES[body].actuators
    whole = parts.join_action(jnp.arange(len(actuators)).reshape(len(SHARES[task]), -1))
    wanted = [name for own in SHARES[task] for name in own]
    assert [wanted[int(k)] for k in whole] == list(actuators)
    many = np.random.default_rng(0).uniform(-1, 1, (3, 2, len(actuators))).astype(np.float32)
    np.testing.assert_array_equal(parts.join_action(parts.split_action(jnp.asarray(many))), many)


@pytest.mark.parametrize(
    ("task", "options", "shape"),
    [
        ("halfcheetah-2x3", {}, (2, 13, 3)),  # four joints of angle and speed, and 5 of the root
        ("halfcheetah-2x3", {"obsk": 0, "root": False}, (2, 6, 3)),  # OMAR's data have these sizes
        ("halfcheetah-6x1", {}, (6, 11, 1)),
        ("ant-2x4", {}, (2, 23, 4)),
        ("ant-4x2", {}, (4, 21, 2)),
        ("hopper-3x1", {}, (3, 11, 1)),
        ("walker2d-2x3", {"root": False}, (2, 8, 3)),
    ],
)
def test_sizes_and_names(task, options, shape):
    env = make(f"mabrax-{task}", **options)
    spec = env.spec
    assert (spec.num_agents, spec.obs_dim, spec.action_dim) == shape
    assert (spec.name, spec.max_episode_steps) == (f"mabrax-{task}", 1000)
    assert env.facts["joints"] == SHARES[task]
    assert env.facts["backend"] == "spring"
    state, obs = jax.eval_shape(env.reset, jax.random.key(0))
    assert obs.shape == shape[:2]


def plain_hopper(name, *, backend, max_episode_steps):
    """In brax's place: each number of a state tells which step, joint or key it comes from."""
    assert (name, backend, max_episode_steps) == ("hopper", "mjx", 7)

    def reset(key):
        obs = jax.random.normal(key, (11,))
        return obs, obs

    def step(state, action):
        obs = 0.5 * state + jnp.concatenate([action, 10.0 * action, 100.0 * action, jnp.ones(2)])
        ended = obs[0] > 0.0
        return obs, TimeStep(obs, jnp.sum(obs), ended, ~ended)

    return Env(reset, step, Spec("brax-hopper", 11, 3, 7), {"backend": backend})


def test_the_team_lives_through_what_the_body_does(monkeypatch):
    """What brax's own body does is compared with brax in test_brax_env.py."""
    monkeypatch.setattr(mabrax, "brax_locomotion", plain_hopper)
    team = mabrax.mabrax("hopper-3x1", obsk=2, backend="mjx", max_episode_steps=7)
    body = plain_hopper("hopper", backend="mjx", max_episode_steps=7)
    index = mabrax.factorise("hopper", 3, obsk=2).obs_index
    assert (index >= 0).all()  # everyone sees all three joints
    state, seen = team.reset(jax.random.key(0))
    other, obs = body.reset(jax.random.key(0))
    np.testing.assert_array_equal(seen, obs[index])
    ended = []
    for action in np.random.default_rng(0).uniform(-1, 1, (8, 3)).astype(np.float32):
        state, mine = team.step(state, action[:, None])
        other, whole = body.step(other, action)
        np.testing.assert_array_equal(mine.obs, whole.obs[index])
        np.testing.assert_array_equal(mine.reward, np.full(3, whole.reward))
        assert (mine.terminated, mine.truncated) == (whole.terminated, whole.truncated)
        ended.append(bool(mine.terminated))
    assert set(ended) == {True, False}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mabrax.mabrax("ant-3x3"), KeyError, "unknown task of mabrax 'ant-3x3'; did you mean 'ant-4x2'"),
        (lambda: mabrax.factorise("cat", 2), KeyError, "unknown body 'cat'"),
        (lambda: mabrax.factorise("ant", 3), ValueError, "num_agents=3 must divide the 8 joints of ant"),
        (lambda: mabrax.factorise("ant", 2, obsk=-1), ValueError, "obsk=-1 must be at least 0"),
    ],
)
def test_bad_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
