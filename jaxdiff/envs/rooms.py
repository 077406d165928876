"""A point mass that must visit regions, in any order, or keep out of others: tasks that plans can be composed for.

    ########
    #..NN..#      N north, S south: at the far sides of the two halls
    #......#
    #.W##E.#      W west, E east: in the gates between the halls, but for a lane along the outer side
    #..**..#      * start
    #..SS..#
    ########

The ball moves as in `pointmaze`. The world is symmetric about its middle column, so the ways to the north through the
west gate and through the east gate are equally long, and the shortest ones lead through those regions; who keeps to the
outer lane touches neither. No region lies between two others: north and south are joined by the lanes. From a gate to
north or south the data's walker takes 50 to 90 steps, from the start to north 110 to 140.
"""

from collections.abc import Sequence
import dataclasses

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.envs.layouts import walls_of
from jaxdiff.envs.pointmaze import RADIUS, WALL_HIGH, WALL_LOW, physics_step
from jaxdiff.regions import visited
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Env, Key, Region, Spec, TimeStep

LAYOUT = (
    "########",
    "#OOOOOO#",
    "#OOOOOO#",
    "#OO##OO#",
    "#OOOOOO#",
    "#OOOOOO#",
    "########",
)
# A cell i is [i - 0.7, i + 0.3]: the middle of columns 1 to 6 is y = 3.3.
REGIONS = (
    Region("north", (0.3, 2.4), (1.3, 4.2)),
    Region("east", (2.3, 4.3), (3.3, 5.5)),
    Region("south", (4.3, 2.4), (5.3, 4.2)),
    Region("west", (2.3, 1.1), (3.3, 2.3)),
)
LANDMARKS = ((1, 3), (1, 4), (3, 5), (5, 3), (5, 4), (3, 2))  # cells whose points, give or take 0.1, are in a region
START = (3.8, 3.3)
START_CELLS = ((4, 3), (4, 4))  # around it
START_SPREAD = 0.2  # per axis
MAX_EPISODE_STEPS = 250


@struct.dataclass
class RoomsState:
    """The ball, the clock, and what was visited."""

    position: Array  # [2]
    velocity: Array  # [2]
    time: Array  # [] int32, steps since reset
    visited: Array  # [W] bool, in the order of `wanted`


def rooms(
    wanted: Sequence[str] = ("south", "east"),
    avoided: Sequence[str] = (),
    *,
    max_episode_steps: int = MAX_EPISODE_STEPS,
) -> Env:
    """Visit all wanted regions, in any order, and never enter an avoided one.

    obs = (x, y, vx, vy): what was visited is not told.
    reward = 1 on the step after which every wanted region has been visited, and the episode terminates; otherwise 0.
    Entering an avoided region terminates with reward 0. A reset puts the ball at rest near (3.8, 3.3), +-0.2 per axis.

    The registered tasks: `rooms-and` wants south and east, neither of which is on the way to the other; `rooms-not`
    wants north and avoids west, through which half of the shortest ways lead.

    Args:
      wanted: names of REGIONS, at least one, none twice.
      avoided: names of others.
      max_episode_steps: clock of the episode.

    Returns:
      Env with obs [4], action [2]. `spec.regions` are all of REGIONS; a normalised score is the percentage of episodes
      that succeed. `facts` holds layout, walls, wall_box, radius, regions (dicts of name, low, high), wanted, avoided.

    Raises:
      KeyError: an unknown region.
      ValueError: nothing wanted, or a region named twice; a clock below 1.
    """
    spec = _spec(wanted, avoided, max_episode_steps)
    to_visit, to_avoid = ([r for name in names for r in REGIONS if r.name == name] for names in (wanted, avoided))
    walls = walls_of(LAYOUT)

    def reset(key: Key) -> tuple[RoomsState, Array]:
        position = jnp.array(START) + START_SPREAD * jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        none = jnp.zeros(len(to_visit), bool)
        state = RoomsState(position=position, velocity=jnp.zeros(2), time=jnp.int32(0), visited=none)
        return state, jnp.concatenate([state.position, state.velocity])

    def step(state: RoomsState, action: Array) -> tuple[RoomsState, TimeStep]:
        position, velocity = physics_step(state.position, state.velocity, action, walls)
        seen = state.visited | jnp.stack([visited(position, region) for region in to_visit])
        trespassed = jnp.stack([jnp.array(False), *(visited(position, region) for region in to_avoid)]).any()
        done = seen.all() & ~trespassed
        time = state.time + 1
        new_state = RoomsState(position=position, velocity=velocity, time=time, visited=seen)
        terminated = done | trespassed
        truncated = (time >= spec.max_episode_steps) & ~terminated
        obs = jnp.concatenate([position, velocity])
        return new_state, TimeStep(obs, done.astype(jnp.float32), terminated, truncated)

    return Env(reset, step, spec, _facts(walls, wanted, avoided))


def _spec(wanted: Sequence[str], avoided: Sequence[str], max_episode_steps: int) -> Spec:
    """The task's spec. Raises as `rooms`."""
    known = [region.name for region in REGIONS]
    for name in (*wanted, *avoided):
        if name not in known:
            raise unknown_name("region", name, known)
    names = [*wanted, *avoided]
    if not wanted or len(set(names)) < len(names):
        raise ValueError(
            f"wanted={tuple(wanted)}, avoided={tuple(avoided)}; want at least one region, and name none twice"
        )
    if max_episode_steps < 1:
        raise ValueError(f"max_episode_steps={max_episode_steps} must be at least 1")
    registered = {(("south", "east"), ()): "rooms-and", (("north",), ("west",)): "rooms-not"}
    own = f"rooms-{'-'.join(wanted)}" + (f"-not-{'-'.join(avoided)}" if avoided else "")
    return Spec(
        name=registered.get((tuple(wanted), tuple(avoided)), own),
        obs_dim=4,
        action_dim=2,
        max_episode_steps=max_episode_steps,
        reference_scores=(0.0, 1.0),
        regions=REGIONS,
    )


def _facts(walls: np.ndarray, wanted: Sequence[str], avoided: Sequence[str]) -> dict[str, object]:
    regions = [dataclasses.asdict(region) for region in REGIONS]
    return {
        "layout": list(LAYOUT),
        "walls": np.argwhere(walls).tolist(),
        "wall_box": [WALL_LOW, WALL_HIGH],
        "radius": RADIUS,
        "regions": [{**region, "low": list(region["low"]), "high": list(region["high"])} for region in regions],
        "wanted": list(wanted),
        "avoided": list(avoided),
    }
