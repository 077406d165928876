"""The particle tasks against a second implementation in numpy, published returns, and their own options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from numpy_mpe import Game
import pytest

from jaxdiff.data.reference import reference_scores
from jaxdiff.envs import make, mpe
from jaxdiff.envs.mpe import prey as preys
from jaxdiff.envs.mpe import tasks, world
from jaxdiff.envs.mpe.scripted import least_assignment

TASKS = ("spread", "tag", "world")
HUNTS = ("tag", "world")
EPISODES = 4000


def drift(obs):
    """A prey that is easily told: it answers the end of what it sees."""
    return jnp.tanh(obs[-4:-2] - obs[:2])


def random_weights(seed, width):
    """Of a prey's network, as numpy draws them."""
    draw = np.random.default_rng(seed)
    shapes = {name: [width if size == "n" else size for size in shape] for name, shape in preys.LAYOUT.items()}
    weights = {name: draw.normal(size=shape) * 0.5 for name, shape in shapes.items()}
    return {**weights, "bn_var": draw.uniform(0.1, 2.0, width)}


@functools.cache
def player(task):
    """(keys [E], which of the task's behaviours, epsilon) -> returns [E]: undiscounted, the mean over agents."""
    env = make(f"mpe-{task}")
    behaviours = [mpe.BEHAVIOURS[name] for name in mpe.BEHAVIOURS_OF[task]]

    def play(key, which, epsilon):
        any_of = mpe.Behaviour(
            lambda state: jax.lax.switch(which, [b.init for b in behaviours], state),
            lambda *seen: jax.lax.switch(which, [b.act for b in behaviours], *seen),
        )
        policy = mpe.with_noise(any_of, epsilon)
        state, _ = env.reset(key)

        def step(carry, key):
            state, memory = carry
            action, memory = policy.act(key, memory, state)
            state, timestep = env.step(state, action)
            return (state, memory), timestep.reward.mean()

        return jax.lax.scan(step, (state, policy.init(state)), jax.random.split(key, 25))[1].sum()

    return jax.jit(jax.vmap(play, in_axes=(0, None, None)))


@functools.cache
def returns(task, behaviour, epsilon):
    keys = jax.random.split(jax.random.key(7), EPISODES)
    return np.asarray(player(task)(keys, mpe.BEHAVIOURS_OF[task].index(behaviour), epsilon), np.float64)


@pytest.mark.parametrize(
    ("task", "force"), [*((task, "omar") for task in TASKS), *((task, "openai") for task in HUNTS)]
)
def test_episodes_are_those_of_the_second_implementation(task, force, x64):
    options = {} if task == "spread" else {"prey": drift}
    env = mpe.mpe(task, force=force, **options)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    draw = np.random.default_rng(0)
    touched = 0
    for seed in range(4):
        state, obs = reset(jax.random.key(seed))
        if seed % 2:  # on top of each other, so that they collide
            state = state.replace(position=0.1 * state.position, landmarks=0.5 * state.landmarks)
        game = Game(task, np.asarray(state.position), np.asarray(state.landmarks), times=2 if force == "omar" else 1)
        if not seed % 2:
            np.testing.assert_allclose(obs, [game.sees(i) for i in range(3)], atol=1e-12)
        for _ in range(25):
            action = draw.uniform(-1.0, 1.0, (3, 2))
            seen = game.sees(3) if task != "spread" else None
            joint = action if seen is None else [*action, np.tanh(seen[-4:-2] - seen[:2])]
            game.play(joint)
            state, timestep = step(state, action)
            np.testing.assert_allclose(timestep.obs, [game.sees(i) for i in range(3)], atol=1e-9)
            np.testing.assert_allclose(timestep.reward, game.pays(), atol=1e-8)
        touched += game.contacts
        assert bool(timestep.truncated) and not bool(timestep.terminated)
    assert int(state.time) == 25
    assert touched > 5  # bodies sank into each other


def test_two_bodies_in_one_point_leave_finite_numbers():
    env = make("mpe-tag")
    zeros = np.zeros((4, 2), np.float32)
    state = mpe.MPEState(zeros, zeros, zeros[:2] + 0.9, np.int32(0))
    state, timestep = jax.jit(env.step)(state, zeros[:3])
    assert np.isfinite(timestep.obs).all() and np.isfinite(timestep.reward).all()
    np.testing.assert_allclose(state.velocity[:3], 0.0, atol=1e-5)


@pytest.mark.parametrize(("task", "obs_dim"), [("spread", 18), ("tag", 16), ("world", 24)])
def test_shapes_and_facts(task, obs_dim):
    env = make(f"mpe-{task}")
    spec = env.spec
    assert (spec.name, spec.num_agents, spec.obs_dim, spec.action_dim) == (f"mpe-{task}", 3, obs_dim, 2)
    assert spec.max_episode_steps == 25
    state, obs = jax.eval_shape(env.reset, jax.random.key(0))
    _, timestep = jax.eval_shape(env.step, state, jnp.ones((3, 2)))
    assert (obs.shape, timestep.obs.shape, timestep.reward.shape) == ((3, obs_dim), (3, obs_dim), (3,))
    assert (timestep.terminated.shape, timestep.truncated.shape) == ((), ())
    assert env.facts["prey"] == ("none" if task == "spread" else "scripted")
    assert len(env.facts["radius"]) == spec.num_agents + state.landmarks.shape[0] + (task != "spread")


def test_uniform_actions_earn_in_spread_what_omars_random_data_do():
    """159.6 +- 60.5 over 200,000 episodes."""
    earned = returns("spread", "assignment", 1.0)
    error = earned.std() / np.sqrt(EPISODES)
    assert abs(earned.mean() - 159.6) < 3 * error
    assert abs(earned.std() - 60.5) < 5.0


def test_the_scripts_of_spread_earn_what_they_should():
    """Returns +- 3 errors of two means of at least 4000 episodes."""
    for behaviour, epsilon, mean, deviation in (
        ("assignment", 0.0, 630.1, 45.0),
        ("assignment", 0.5, 509.0, 79.0),
        ("fixed", 0.0, 577.0, 62.0),
        ("nearest", 0.0, 399.0, 167.0),
    ):
        earned = returns("spread", behaviour, epsilon)
        assert abs(earned.mean() - mean) < 0.6 + 3 * deviation * np.sqrt(2 / EPISODES), (behaviour, epsilon)
        assert abs(earned.std() - deviation) < 0.05 * deviation + 1.0, (behaviour, epsilon)


@pytest.mark.parametrize("task", HUNTS)
def test_hunting_pays_the_more_the_fewer_actions_are_random(task):
    low, high = make(f"mpe-{task}").spec.reference_scores
    ladder = [returns(task, "lead_chase", epsilon).mean() for epsilon in (1.0, 0.5, 0.25, 0.1, 0.0)]
    assert (np.diff(ladder) > 0).all()
    assert returns(task, "chase", 0.0).mean() < ladder[-1]
    for measured, reference in ((returns(task, "lead_chase", 1.0), low), (returns(task, "lead_chase", 0.1), high)):
        assert abs(measured.mean() - reference) < 4 * measured.std() / np.sqrt(EPISODES)


def test_the_assignment_is_the_best_of_all(x64):
    draw = np.random.default_rng(1)
    worlds = draw.uniform(-1, 1, (2, 20, 3, 2))
    every = np.asarray(jax.jit(jax.vmap(least_assignment))(*worlds))
    for agents, landmarks, chosen in zip(*worlds, every, strict=True):
        totals = {}
        for a in range(3):
            for b in range(3):
                for c in range(3):
                    if len({a, b, c}) == 3:
                        way = [a, b, c]
                        totals[a, b, c] = sum(np.linalg.norm(agents[i] - landmarks[way[i]]) for i in range(3))
        assert tuple(chosen.tolist()) == min(totals, key=totals.get)


def test_noise_replaces_the_stated_share_of_agents_actions():
    place = np.random.default_rng(2).uniform(-1, 1, (2, 3, 2)).astype(np.float32)
    state = mpe.MPEState(jnp.asarray(place[0]), jnp.zeros((3, 2)), jnp.asarray(place[1]), jnp.int32(0))
    own = np.clip(10 * (place[1] - place[0]), -1, 1)  # of agents at rest
    policy = mpe.with_noise(mpe.BEHAVIOURS["fixed"], 0.3)
    act = jax.jit(jax.vmap(lambda key: policy.act(key, jnp.arange(3), state)[0]))
    kept = (np.abs(np.asarray(act(jax.random.split(jax.random.key(1), 4000))) - own) < 1e-4).all(-1)
    assert np.abs(kept.mean(axis=0) - 0.7).max() < 4 * np.sqrt(0.3 * 0.7 / 4000)
    assert abs(np.corrcoef(kept.T)[0, 1]) < 0.07  # each agent for itself


@pytest.mark.parametrize("task", TASKS)
def test_the_scales_act_on_the_learners_alone(task):
    """A free agent that pushes for long reaches its limit, or force * 0.1 / 0.25 per axis; 0.5 halves either."""
    chosen = tasks.TASKS[task]
    far = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [-9.0, 0.0]], np.float32)[: chosen.num_agents]
    landmarks = np.full((len(chosen.landmark_radius), 2), -50.0, np.float32)

    def speeds(**options):
        env = make(f"mpe-{task}", **options)

        @jax.jit
        def push(state):
            def step(state, action):
                state = env.step(state, action)[0]
                return state, jnp.linalg.norm(state.velocity, axis=1)

            return jax.lax.scan(step, state, jnp.ones((40, 3, 2)))[1][np.array([0, -1])]

        return np.asarray(push(mpe.MPEState(far, np.zeros_like(far), landmarks, np.int32(0))))

    (first, last), (slow_first, slow_last) = speeds(), speeds(speed_scale=0.5)
    top = 2.0 * np.sqrt(2.0) if task == "spread" else 1.0
    np.testing.assert_allclose(last[:3], top, rtol=1e-3)
    np.testing.assert_allclose(slow_last[:3], 0.5 * top, rtol=1e-3)
    np.testing.assert_array_equal(last[3:], slow_last[3:])
    weak_first, _ = speeds(sensitivity_scale=0.5)
    np.testing.assert_allclose(weak_first[:3], 0.05 * np.sqrt(2) * (5 if task == "spread" else 9), rtol=1e-5)
    np.testing.assert_array_equal(first[3:], weak_first[3:])
    if task == "spread":
        np.testing.assert_allclose(slow_first, weak_first, rtol=1e-6)


@pytest.mark.parametrize("task", HUNTS)
def test_the_scripted_prey_flees_and_stays_near_the_arena(task):
    chosen = tasks.TASKS[task]
    act = jax.jit(lambda state: preys.scripted_prey(chosen)(tasks.observe_prey(chosen, state)))
    landmarks = np.full((len(chosen.landmark_radius), 2), 0.5, np.float32)

    def answer(*places):
        places = np.array(places, np.float32)
        return np.asarray(act(mpe.MPEState(places, np.zeros_like(places), landmarks, np.int32(0))))

    from_the_left = answer([-0.3, 0.0], [-0.4, 0.1], [-0.4, -0.1], [0.0, 0.0])
    assert from_the_left[0] > 0.1 and abs(from_the_left[1]) < 1e-6
    nearer = answer([-0.1, 0.0], [-0.4, 0.1], [-0.4, -0.1], [0.0, 0.0])
    assert nearer[0] > from_the_left[0]
    assert answer([0.0, 1.9], [0.5, 0.5], [-0.5, 0.5], [0.0, 2.0])[1] < -0.9  # home, whoever waits there

    env = make(f"mpe-{task}")

    def run(key):
        def step(state, _):
            action, _ = mpe.BEHAVIOURS["lead_chase"].act(key, (), state)
            state, _ = env.step(state, action)
            return state, state.position[3]

        return jax.lax.scan(step, env.reset(key)[0], None, length=25)[1]

    places = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(2), 500))
    assert np.abs(places).max() < 1.6  # a run of 25 steps at full speed would be 3.25


@pytest.mark.parametrize(("task", "width"), [("tag", 14), ("world", 22)])
def test_a_network_prey_is_the_formula_and_only_omars_own_brings_scores(task, width, x64):
    weights = random_weights(0, width)
    prey = mpe.prey_network(weights)
    obs = np.random.default_rng(1).normal(size=width)
    x = (obs - weights["bn_mean"]) / np.sqrt(weights["bn_var"] + 1e-5) * weights["bn_gamma"] + weights["bn_beta"]
    x = np.maximum(weights["w1"] @ x + weights["b1"], 0.0)
    x = np.maximum(weights["w2"] @ x + weights["b2"], 0.0)
    np.testing.assert_allclose(prey(jnp.asarray(obs)), np.tanh(weights["w3"] @ x + weights["b3"]), atol=1e-12)
    foreign = mpe.mpe(task, prey=prey)
    assert (foreign.spec.name, foreign.spec.reference_scores) == (f"mpe-{task}-network", None)
    prey = mpe.prey_network({**weights, "published": np.array(True)})
    env = mpe.mpe(task, prey=prey)
    assert (env.spec.name, env.facts["prey"]) == (f"mpe-{task}-omar", "omar")
    assert env.spec.reference_scores == {"tag": (-4.1, 185.6), "world": (-6.8, 79.5)}[task]
    assert mpe.mpe(task, prey=drift).spec.reference_scores is None
    assert mpe.mpe(task, force="openai").spec.reference_scores is None
    assert mpe.mpe("spread", force="openai").spec.reference_scores == (159.8, 516.8)
    assert mpe.mpe(task, max_episode_steps=9, prey=prey).spec.reference_scores is None


def test_answers_of_a_network_prey_are_inside_the_box():
    prey = mpe.prey_network({name: 0.3 * value for name, value in random_weights(4, 14).items()})
    answers = jax.vmap(prey)(jnp.asarray(np.random.default_rng(5).normal(size=(1000, 14)), jnp.float32))
    assert np.abs(answers).max() < 1.0


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (KeyError, {"task": "tog"}, "unknown task of mpe 'tog'; did you mean 'tag'"),
        (KeyError, {"task": "tag", "force": "opnai"}, "unknown force 'opnai'; did you mean 'openai'"),
        (KeyError, {"task": "tag", "prey": "omar"}, "unknown prey 'omar'"),
        (ValueError, {"task": "tag", "speed_scale": 0.0}, "speed_scale=0.0 must be positive"),
        (ValueError, {"task": "tag", "sensitivity_scale": float("inf")}, "sensitivity_scale=inf must be"),
        (ValueError, {"task": "tag", "max_episode_steps": 0}, "max_episode_steps=0 must be at least 1"),
        (ValueError, {"task": "spread", "prey": drift}, "has no use in mpe-spread"),
        (ValueError, {"task": "tag", "prey": lambda obs: obs}, r"must become an action \[2\]"),
        (ValueError, {"task": "world", "prey": mpe.prey_network(random_weights(0, 14))}, "sees 22 numbers and .* 14"),
    ],
)
def test_options_that_make_no_sense_are_refused(error, options, message):
    with pytest.raises(error, match=message):
        mpe.mpe(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("b2"), "no b2 among"),
        (lambda w: w.update(w1=w["w1"].T), r"w1 has shape \(14, 64\), \(64, 14\) is needed"),
        (lambda w: w.update(b3=np.array([0.0, np.nan])), "b3 has numbers that are not finite"),
        (lambda w: w.update(bn_var=-w["bn_var"]), "bn_var has negative numbers"),
    ],
)
def test_weights_of_another_layout_are_refused(change, message):
    weights = random_weights(0, 14)
    change(weights)
    with pytest.raises(ValueError, match=message):
        mpe.prey_network(weights)


def test_a_speed_is_limited_along_its_direction():
    bodies = world.Bodies((0.1,), (True,), (1.0,), (1.0,))
    _, velocity = world.physics_step(
        jnp.zeros((1, 2)), jnp.array([[4.0, 3.0]]), jnp.zeros((0, 2)), jnp.zeros((1, 2)), bodies
    )
    np.testing.assert_allclose(velocity, [[0.8, 0.6]], rtol=1e-6)


def test_the_published_scores_stand_in_data_and_tasks_alike():
    """The two rooms may not import each other."""
    for task, scores in mpe.OMAR_SCORES.items():
        assert reference_scores(f"simple_{task}") == scores
