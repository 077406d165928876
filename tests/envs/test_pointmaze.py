"""The maze against an independent float64 model, closed forms and its own rules."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.envs import make, pointmaze

MASS = 4.1887902047863905  # 1000 * 4/3 pi 0.1**3


def reference_step(position, velocity, action, layout):
    """Float64 numpy: the same law of motion, then `reference_contact`."""
    velocity = np.clip(velocity, -5, 5)
    velocity = velocity + 0.01 * (100 * np.clip(action, -1, 1) - velocity) / (MASS + 0.01)
    return reference_contact(position + 0.01 * velocity, velocity, layout)


def reference_contact(position, velocity, layout):
    """Contacts by search over every box, the deepest one first, until none is left."""
    boxes = [(i, j) for i, row in enumerate(layout) for j, mark in enumerate(row) if mark == "#"]
    low = np.array(boxes) - 0.7
    for _ in range(4):
        nearest = np.clip(position, low, low + 1.0)
        distance = np.linalg.norm(position - nearest, axis=1)
        deepest = distance.argmin()
        if distance[deepest] >= 0.1 - 1e-12:
            break
        normal = (position - nearest[deepest]) / distance[deepest]
        position = nearest[deepest] + 0.1 * normal
        velocity = velocity - min(velocity @ normal, 0.0) * normal
    return position, velocity


def clearance(positions, layout):
    """Distance from each point [N, 2] to the nearest wall box."""
    low = np.array([(i, j) for i, row in enumerate(layout) for j, mark in enumerate(row) if mark == "#"]) - 0.7
    nearest = np.clip(positions[:, None], low, low + 1.0)
    return np.linalg.norm(positions[:, None] - nearest, axis=-1).min(axis=1)


def rollout(env, keys, actions):
    """Episodes side by side, jitted: keys [B], actions [B, H, 2] -> first obs [B, 4], TimeStep of [B, H, ...]."""

    def run(key, actions):
        state, obs = env.reset(key)
        return obs, jax.lax.scan(env.step, state, actions)[1]

    return jax.jit(jax.vmap(run))(keys, actions)


@pytest.mark.parametrize("name", ["umaze", "medium", "large"])
def test_trajectory_equals_an_independent_float64_model(name, x64):
    layout, rng = pointmaze.LAYOUTS[name], np.random.default_rng(1)
    walls = pointmaze.walls_of(name)
    # Each action is held for 25 steps, so the ball crosses cells and slides along walls.
    actions = np.repeat(rng.uniform(-1.5, 1.5, (24, 2)), 25, axis=0)
    start = np.array(pointmaze.goal_of(name), np.float64)
    step = jax.jit(pointmaze.physics_step)
    position, velocity = jnp.asarray(start), jnp.zeros(2)
    expected, expected_velocity = start, np.zeros(2)
    contacts = 0
    for action in actions:
        position, velocity = step(position, velocity, action, walls)
        expected, expected_velocity = reference_step(expected, expected_velocity, action, layout)
        contacts += clearance(expected[None], layout)[0] < 0.1 + 1e-9
        np.testing.assert_allclose(position, expected, atol=1e-9)
        np.testing.assert_allclose(velocity, expected_velocity, atol=1e-9)
    assert contacts > 50


@pytest.mark.parametrize("name", ["umaze", "medium"])
def test_contacts_anywhere_equal_a_search_over_every_box(name, x64):
    layout, rng = pointmaze.LAYOUTS[name], np.random.default_rng(2)
    points = rng.uniform(0, len(layout) - 1, (10_000, 2))
    distance = clearance(points, layout)
    points = points[(distance > 0.03) & (distance < 0.1)][:500]
    velocity = rng.uniform(-5, 5, points.shape)
    got = jax.vmap(pointmaze.resolve_contact, (0, 0, None))(points, velocity, pointmaze.walls_of(name))
    expected = [reference_contact(p, v, layout) for p, v in zip(points, velocity, strict=True)]
    np.testing.assert_allclose(np.stack(got, axis=1), np.array(expected), atol=1e-9)
    shifts = np.abs(np.asarray(got[0]) - points) > 1e-6
    assert shifts.all(axis=1).sum() > 10  # convex corners and pairs of walls were met


def test_free_motion_has_the_closed_form_of_a_damped_particle(x64):
    # Far from walls v_n = v_0 r**n + 100 a (1 - r**n) with r = m / (m + dt), as long as |v| < 5.
    ratio = MASS / (MASS + 0.01)
    action, start = np.array([0.05, -0.02]), np.array([0.5, 0.3])
    walls = np.zeros((50, 50), bool)
    step = jax.jit(pointmaze.physics_step)
    position, velocity = jnp.array([20.0, 20.0]), jnp.asarray(start)
    for _ in range(200):
        position, velocity = step(position, velocity, action, walls)
    n = np.arange(1, 201)[:, None]
    velocities = start * ratio**n + 100 * action * (1 - ratio**n)
    np.testing.assert_allclose(velocity, velocities[-1], rtol=1e-10)
    np.testing.assert_allclose(position, 20 + 0.01 * velocities.sum(axis=0), rtol=1e-10)


def test_top_speed_is_the_clip_plus_one_push(x64):
    walls = np.zeros((200, 200), bool)
    position, velocity = jnp.array([1.0, 190.0]), jnp.zeros(2)
    step = jax.jit(pointmaze.physics_step)
    for _ in range(60):
        position, velocity = step(position, velocity, jnp.array([1.0, -1.0]), walls)
    np.testing.assert_allclose(velocity, [5 + 0.95 / (MASS + 0.01), -5 - 0.95 / (MASS + 0.01)], rtol=1e-12)


@pytest.mark.parametrize(
    ("action", "rest"),
    [((0.0, 1.0), (3.0, 3.2)), ((0.0, -1.0), (3.0, 0.4)), ((1.0, 1.0), (3.2, 3.2)), ((1.0, -1.0), (3.2, 0.4))],
)
def test_full_force_rests_against_the_wall(action, rest):
    # The U maze's lower corridor is row 3, columns 1 to 3: walls let the centre reach 1 - 0.6 and 3 + 0.2.
    walls = pointmaze.walls_of("umaze")
    position, velocity = jnp.array([3.0, 2.0]), jnp.zeros(2)
    step = jax.jit(pointmaze.physics_step)
    for _ in range(200):
        position, velocity = step(position, velocity, jnp.array(action), walls)
    np.testing.assert_allclose(position, rest, atol=1e-6)
    np.testing.assert_allclose(velocity, 0.0, atol=1e-6)


@pytest.mark.parametrize("name", pointmaze.LAYOUTS)
def test_the_ball_never_overlaps_a_wall(name):
    env = make(f"pointmaze-{name}")
    horizon, episodes = 300, 32
    rng = np.random.default_rng(3)
    actions = np.sign(rng.uniform(-1, 1, (episodes, horizon // 20, 2))).repeat(20, axis=1).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), episodes)
    _, timestep = rollout(env, keys, jnp.asarray(actions))
    positions = np.asarray(timestep.obs)[..., :2].reshape(-1, 2)
    gaps = clearance(positions, pointmaze.LAYOUTS[name])
    assert gaps.min() > 0.1 - 2e-6
    assert (gaps < 0.1 + 1e-5).mean() > 0.02  # the walls were reached


@pytest.mark.parametrize("name", pointmaze.LAYOUTS)
def test_resets_cover_every_free_cell_and_no_wall(name):
    layout, env = pointmaze.LAYOUTS[name], make(f"pointmaze-{name}")
    state, obs = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(1), 4000))
    position, velocity = np.split(np.asarray(obs), 2, axis=-1)
    np.testing.assert_array_equal(position, state.position)
    cells = np.rint(position).astype(int)
    assert np.abs(position - cells).max() <= 0.1
    assert clearance(position, layout).min() >= 0.1
    free = {(i, j) for i, row in enumerate(layout) for j, mark in enumerate(row) if mark != "#"}
    drawn, counts = np.unique(cells, axis=0, return_counts=True)
    assert {tuple(cell) for cell in drawn.tolist()} == free
    expected = 4000 / len(free)
    assert ((counts - expected) ** 2 / expected).sum() < len(free) + 6 * np.sqrt(2 * len(free))  # chi-squared
    np.testing.assert_allclose(velocity.std(), 0.1, rtol=0.05)


@pytest.mark.parametrize("dense", [False, True])
def test_reward_is_that_of_the_position_after_the_step(dense):
    env = make("pointmaze-umaze-dense" if dense else "pointmaze-umaze")
    actions = jnp.asarray(np.random.default_rng(4).uniform(-1, 1, (300, 2)), jnp.float32)
    _, timesteps = rollout(env, jax.random.split(jax.random.key(2), 16), jnp.tile(actions, (16, 1, 1)))
    distance = np.linalg.norm(np.asarray(timesteps.obs, np.float64)[..., :2] - [1.0, 1.0], axis=-1)
    clear = np.abs(distance - 0.5) > 1e-5
    expected = np.exp(-distance) if dense else (distance <= 0.5).astype(float)
    np.testing.assert_allclose(np.asarray(timesteps.reward)[clear], expected[clear], atol=1e-6)
    assert 0.01 < expected.mean() < 0.99


@pytest.mark.parametrize(("name", "steps"), [("open", 150), ("umaze", 300), ("medium", 600), ("large", 800)])
def test_only_the_clock_ends_an_episode(name, steps):
    env = make(f"pointmaze-{name}")
    assert env.spec.max_episode_steps == steps
    _, timestep = rollout(env, jax.random.key(0)[None], jnp.zeros((1, steps, 2)))
    assert not timestep.terminated.any()
    assert np.flatnonzero(timestep.truncated[0]).tolist() == [steps - 1]


def test_actions_beyond_one_are_clipped():
    walls, start = pointmaze.walls_of("large"), jnp.array([1.0, 1.0])
    step = jax.jit(pointmaze.physics_step)
    wild, tame = (step(start, jnp.zeros(2), jnp.array(action), walls) for action in ((7.0, -9.0), (1.0, -1.0)))
    np.testing.assert_array_equal(wild, tame)


def test_reference_scores_belong_to_d4rls_task_only():
    assert make("pointmaze-umaze").spec.reference_scores == (23.85, 161.86)
    assert make("pointmaze-large-dense").spec.reference_scores == (30.569041, 303.4857382709002)
    assert make("pointmaze-umaze", max_episode_steps=100).spec.reference_scores is None
    assert pointmaze.pointmaze(("####", "#GO#", "####")).spec.reference_scores is None


def test_facts_are_plain_and_say_where_the_walls_are():
    env = make("pointmaze-umaze")
    facts = json.loads(json.dumps(dict(env.facts)))
    assert facts["layout"] == ["#####", "#GOO#", "###O#", "#OOO#", "#####"]
    assert facts["goal"] == [1.0, 1.0]
    assert [2, 2] in facts["walls"]
    assert len(facts["walls"]) == 25 - 7
    assert facts["wall_box"] == [-0.7, 0.3]


def test_a_maze_can_be_written_as_rows_or_as_one_string():
    rows = ("#####", "#OOG#", "#####")
    for layout in ("\n".join(rows), "\\".join(rows), list(rows), "\n  #####\n  #OOG#\n  #####\n"):
        env = pointmaze.pointmaze(layout, max_episode_steps=7)
        assert env.facts["goal"] == [1.0, 3.0]
        assert env.spec.name == "pointmaze-custom"
        np.testing.assert_array_equal(pointmaze.walls_of(layout), [[c == "#" for c in row] for row in rows])
    assert pointmaze.goal_of("large") == (7, 9)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (("####", "#GO#", "#O##", "####O"), r"rows have lengths \[4, 4, 4, 5\]"),
        ((), r"rows have lengths \[\]"),
        (("####", "#GX#", "####"), "unknown character 'X' at row 1, column 2"),
        (("####", "#GOO", "####"), "not closed: 'O' on the border at row 1, column 3"),
        (("#G##", "#OO#", "####"), "not closed: 'G' on the border at row 0, column 1"),
        (("####", "#OO#", "####"), "has 0 goals; mark exactly one"),
        (("####", "#GG#", "####"), "has 2 goals; mark exactly one"),
    ],
)
def test_a_malformed_maze_is_refused_with_the_place(layout, message):
    with pytest.raises(ValueError, match=message):
        pointmaze.pointmaze(layout)


def test_a_misspelt_layout_is_answered_with_the_nearest():
    with pytest.raises(KeyError, match="unknown maze layout 'meduim'; did you mean 'medium'"):
        pointmaze.pointmaze("meduim")


def test_an_episode_needs_a_step():
    with pytest.raises(ValueError, match="max_episode_steps=0 must be at least 1"):
        make("pointmaze-open", max_episode_steps=0)
