"""Real MuJoCo through gymnasium."""

import sys

import gymnasium
import numpy as np
import pytest

from jaxdiff.envs import HOST_ENVS, is_host, make_host


@pytest.fixture
def hopper():
    env = make_host("gymnasium-Hopper-v5", 3)
    yield env
    env.close()


def test_shapes_and_spec(hopper):
    assert (hopper.spec.obs_dim, hopper.spec.action_dim, hopper.spec.max_episode_steps) == (11, 3, 1000)
    assert hopper.spec.reference_scores == (-20.272305, 3234.3)
    obs = hopper.reset(0)
    after, reward, terminated, truncated = hopper.step(np.zeros((3, 3)))
    assert obs.shape == after.shape == (3, 11)
    assert obs.dtype == after.dtype == reward.dtype == np.float32
    assert reward.shape == terminated.shape == truncated.shape == (3,)
    assert terminated.dtype == truncated.dtype == bool


def test_episodes_are_gymnasiums_own(hopper):
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (40, 3, 3)).astype(np.float32)
    obs = hopper.reset(5)
    seeds = np.random.SeedSequence(5).generate_state(3)
    for b in range(3):
        bare = gymnasium.make("Hopper-v5")
        np.testing.assert_allclose(obs[b], bare.reset(seed=int(seeds[b]))[0], atol=1e-6)
        bare.close()
    bare = gymnasium.make("Hopper-v5")
    bare.reset(seed=int(seeds[1]))
    for action in actions:
        after, reward, terminated, truncated = hopper.step(action)
        expected = bare.step(action[1])
        np.testing.assert_allclose(after[1], expected[0], atol=1e-5)
        np.testing.assert_allclose(reward[1], expected[1], atol=1e-5)
        assert (terminated[1], truncated[1]) == expected[2:4]
        if terminated[1]:
            break
    bare.close()


def test_finished_copies_are_left_alone(hopper):
    hopper.reset(0)
    ended = np.zeros(3, bool)
    for _ in range(200):
        obs, reward, terminated, truncated = hopper.step(np.tile([1.0, -1.0, 1.0], (3, 1)))
        assert (obs[ended] == 0).all()
        assert (reward[ended] == 0).all()
        assert not (terminated | truncated)[ended].any()
        assert np.abs(obs[~ended]).max(initial=1.0) > 0
        ended |= terminated | truncated
        np.testing.assert_array_equal(hopper.finished, ended)
    assert ended.all()
    assert not truncated.any()
    hopper.reset(1)
    assert not hopper.finished.any()


def test_the_clock_truncates_a_task_that_cannot_fall():
    env = make_host("gymnasium-HalfCheetah-v5", 1)
    env.reset(0)
    flags = [env.step(np.zeros((1, 6)))[2:] for _ in range(1000)]
    env.close()
    assert not any(terminated[0] for terminated, _ in flags)
    assert [t for t, (_, truncated) in enumerate(flags) if truncated[0]] == [999]


def test_starts_depend_on_the_seed_and_the_copy_alone(hopper):
    one, again, other = hopper.reset(7), hopper.reset(7), hopper.reset(8)
    np.testing.assert_array_equal(one, again)
    assert len(np.unique(np.concatenate([one, other]), axis=0)) == 6
    single = make_host("gymnasium-Hopper-v5", 1)
    np.testing.assert_array_equal(single.reset(7), one[:1])
    single.close()


def test_actions_are_mapped_onto_the_tasks_own_range():
    env = make_host("gymnasium-Humanoid-v5", 1)  # its actions are in [-0.4, 0.4]
    bare = gymnasium.make("Humanoid-v5")
    env.reset(0)
    bare.reset(seed=int(np.random.SeedSequence(0).generate_state(1)[0]))
    action = np.linspace(-1.2, 1.0, 17)
    got = env.step(action[None])
    expected = bare.step((0.4 * np.clip(action, -1, 1)).astype(np.float32))
    np.testing.assert_allclose(got[0][0], expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got[1][0], expected[1], rtol=1e-5)
    assert env.spec.reference_scores is None
    env.close()
    bare.close()


def test_half_cheetah_leaves_no_log_behind(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    make_host("gymnasium-HalfCheetah-v5", 1).close()
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_names():
    assert all(is_host(name) for name in HOST_ENVS)
    assert not is_host("brax-hopper")
    with pytest.raises(KeyError, match="unknown gymnasium task 'Hoper-v5'; did you mean 'Hopper-v5'"):
        make_host("gymnasium-Hoper-v5", 1)
    with pytest.raises(KeyError, match="unknown host environment 'brax-hopper'"):
        make_host("brax-hopper", 1)
    with pytest.raises(ValueError, match="num_envs=0 must be at least 1"):
        make_host("gymnasium-Hopper-v5", 0)


def test_tasks_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="has actions Discrete.*only one bounded vector"):
        make_host("gymnasium-CartPole-v1", 1)


def test_a_wrong_action_shape_is_refused(hopper):
    hopper.reset(0)
    with pytest.raises(ValueError, match=r"action has shape \(3,\); give \(3, 3\)"):
        hopper.step(np.zeros(3))


def test_without_gymnasium_the_message_is_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match=r'pip install "jaxdiff\[mujoco\]"'):
        make_host("gymnasium-Hopper-v5", 1)
