"""Regions to visit or to avoid: what ends an episode, what is paid, and how the world is laid out."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.envs import make, rooms
from jaxdiff.envs.layouts import walls_of
from jaxdiff.regions import visited

REGION = {region.name: region for region in rooms.REGIONS}
# Corners of walks at full width, from the start; the last point lies in the region that the walk is named by.
TO_SOUTH, TO_EAST, TO_WEST = [(4.8, 3.3)], [(3.8, 4.9), (2.8, 4.9)], [(3.8, 1.7), (2.8, 1.7)]
NORTH_BY_EAST, NORTH_BY_WEST = [*TO_EAST, (1.8, 4.9), (0.8, 3.3)], [*TO_WEST, (1.8, 1.7), (0.8, 3.3)]
NORTH_BY_LANE = [(3.8, 0.7), (2.0, 0.7), (0.8, 3.3)]  # on the west side, outside the region
BACK = [(3.8, 3.3)]


@pytest.fixture(scope="module")
def walk():
    """walk(task, corners) -> TimeStep of [250] on a walk along the corners; programs are compiled once per task."""
    programs = {}

    def program(wanted, avoided):
        env = rooms.rooms(wanted, avoided)

        def run(key, corners):
            def step(carry, _):
                state, k = carry
                aim = corners[k]
                action = jnp.clip(10 * (aim - state.position) - state.velocity, -1, 1)
                state, timestep = env.step(state, action)
                k += jnp.linalg.norm(state.position - aim) < 0.1
                return (state, jnp.minimum(k, len(corners) - 1)), timestep

            state, _ = env.reset(key)
            return jax.lax.scan(step, (state, 0), None, length=250)[1]

        return jax.jit(jax.vmap(run, in_axes=(None, 0)))

    def walk(wanted, avoided, *walks):
        if (wanted, avoided) not in programs:
            programs[wanted, avoided] = program(wanted, avoided)
        longest = 8
        padded = np.array([list(corners) + [corners[-1]] * (longest - len(corners)) for corners in walks], np.float32)
        return jax.tree.map(np.asarray, programs[wanted, avoided](jax.random.key(0), padded))

    return walk


def test_wanted_regions_may_be_visited_in_any_order_and_are_paid_once(walk):
    found = walk(
        ("south", "east"),
        (),
        [*TO_SOUTH, *BACK, *TO_EAST],
        [*TO_EAST, *BACK, *TO_SOUTH],
        [*TO_SOUTH, *BACK, *TO_WEST],
        TO_EAST,
    )
    for lane, last in ((0, "east"), (1, "south")):
        end = np.flatnonzero(found.terminated[lane])[0]
        inside = np.asarray(visited(found.obs[lane], REGION[last]))
        assert np.flatnonzero(inside)[0] == end
        np.testing.assert_array_equal(np.flatnonzero(found.reward[lane, : end + 1]), [end])
        assert found.reward[lane, end] == 1.0
    for lane in (2, 3):  # one of the two is not enough
        assert not found.reward[lane].any()
        assert not found.terminated[lane].any()
        assert np.flatnonzero(found.truncated[lane]).tolist() == [249]


def test_entering_an_avoided_region_ends_the_episode_unpaid(walk):
    found = walk(("north",), ("west",), NORTH_BY_WEST, NORTH_BY_EAST, NORTH_BY_LANE, TO_SOUTH)
    ended = [np.flatnonzero(lane)[0] if lane.any() else None for lane in found.terminated]
    entered = np.asarray(visited(found.obs[0], REGION["west"]))
    assert ended[0] == np.flatnonzero(entered)[0]
    assert found.reward[0, : ended[0] + 1].sum() == 0.0
    for lane in (1, 2):
        assert visited(found.obs[lane, ended[lane]], REGION["north"])
        assert not visited(found.obs[lane, : ended[lane]], REGION["north"]).any()
        assert found.reward[lane, : ended[lane] + 1].sum() == found.reward[lane, ended[lane]] == 1.0
    assert visited(found.obs[1], REGION["east"]).any()
    assert not visited(found.obs[2], REGION["east"]).any()
    assert ended[3] is None


def test_the_world_is_symmetric_and_regions_are_apart():
    walls = walls_of(rooms.LAYOUT)
    np.testing.assert_array_equal(walls, walls[:, ::-1])
    np.testing.assert_array_equal(walls, walls[::-1])

    def mirror(region):
        return region.low[0], 6.6 - region.high[1], region.high[0], 6.6 - region.low[1]

    np.testing.assert_allclose(mirror(REGION["west"]), (*REGION["east"].low, *REGION["east"].high))
    for name in ("north", "south"):
        np.testing.assert_allclose(mirror(REGION[name]), (*REGION[name].low, *REGION[name].high))
    grid = np.stack(np.meshgrid(np.linspace(0, 6, 121), np.linspace(0, 7, 141), indexing="ij"), axis=-1)
    inside = np.stack([visited(grid, region) for region in rooms.REGIONS])
    assert inside.any(axis=(1, 2)).all()
    assert inside.sum(axis=0).max() == 1
    start = np.array([[i, j] for i in (3.6, 4.0) for j in (3.1, 3.5)])
    assert not any(visited(start, region).any() for region in rooms.REGIONS)


def test_landmarks_lie_in_regions_with_all_points_near_them():
    corners = np.array([[i, j] for i in (-0.1, 0.1) for j in (-0.1, 0.1)])
    hits = [[bool(visited(np.array(cell) + corners, r).all()) for r in rooms.REGIONS] for cell in rooms.LANDMARKS]
    assert (np.sum(hits, axis=1) == 1).all()
    assert np.any(hits, axis=0).all()
    assert np.abs(np.mean(rooms.START_CELLS, axis=0) - 0.2 - rooms.START).max() < 1e-6  # a cell's middle is at i - 0.2


def test_spec_and_facts():
    env = make("rooms-not")
    assert (env.spec.obs_dim, env.spec.action_dim, env.spec.reference_scores) == (4, 2, (0.0, 1.0))
    assert [region.name for region in env.spec.regions] == ["north", "east", "south", "west"]
    assert hash(env.spec) == hash(make("rooms-not").spec)
    facts = json.loads(json.dumps(dict(env.facts)))
    assert (facts["wanted"], facts["avoided"], "goal" in facts) == (["north"], ["west"], False)
    assert facts["regions"][1] == {"name": "east", "low": [2.3, 4.3], "high": [3.3, 5.5]}
    assert make("rooms-and").facts["wanted"] == ["south", "east"]
    assert rooms.rooms(("west",), ("north", "east")).spec.name == "rooms-west-not-north-east"
    state, obs = env.reset(jax.random.key(0))
    assert np.abs(np.asarray(obs) - [3.8, 3.3, 0, 0]).max() <= 0.2
    assert (obs[2:] == 0).all() and not state.visited.any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"wanted": ("nroth",)}, KeyError, "unknown region 'nroth'; did you mean 'north'"),
        ({"avoided": ("up",)}, KeyError, "unknown region 'up'; known: east, north, south, west"),
        ({"wanted": ()}, ValueError, "want at least one region"),
        ({"wanted": ("north",), "avoided": ("north",)}, ValueError, "name none twice"),
        ({"max_episode_steps": 0}, ValueError, "max_episode_steps=0 must be at least 1"),
    ],
)
def test_a_wrong_task_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        rooms.rooms(**options)
