"""JaxMARL's environments as tasks: "jaxmarl-" and JaxMARL's own id. Needs the extra `marl`.

    env = make("jaxmarl-MPE_simple_tag_v3")
    env = make("jaxmarl-HeuristicEnemySMAX", scenario="3m", max_episode_steps=50)

    observations  each agent's own vector, with zeros at its end where others' are longer, then the mask
    actions       all a choice: scores, and a mask where JaxMARL has one or where agents have different numbers of
                  choices, the missing ones forbidden; or all a box of one size: [-1, 1] is mapped onto [low, high]
    rewards       JaxMARL's own, in the order of its `agents`; also those of agents that are out
    agents out    (done, while others play on) see zeros before the mask

An environment that has pictures, different boxes, or episodes within its episodes is refused.

JaxMARL says `done` at the end of its clock as it does at the end of a task, and some of its clocks ring a step after
the number that they are given (the particles' after 26 steps, SMAX's after 101). Here the Env's clock counts, and
JaxMARL's is set to ring one step later, that is never. Where it cannot be set, what ends with the clock is a
truncation. JaxMARL's restart, in its `step`, is not used.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import io
import sys
from typing import Any, NamedTuple

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.envs.discrete import decode_onehot
from jaxdiff.envs.quiet import quiet_loading
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Env, Key, PyTree, Spec, TimeStep

PREFIX = "jaxmarl-"
CLOCKS = ("max_steps", "episode_length")  # of everything else, and of the brax bodies
RESERVED = (*CLOCKS, "action_repeat", "auto_reset")


@struct.dataclass
class JaxmarlState:
    """JaxMARL's own state, the key of its next steps, what it allows now, and the clock."""

    inner: PyTree
    key: Key  # [] typed
    mask: Array | None  # [A, n] bool; None where actions are numbers
    time: Array  # [] int32, steps since reset


class _Actions(NamedTuple):
    """How a team's actions are handed over."""

    size: int  # U
    num_actions: int | None
    is_masked: bool
    allowed: Callable[[PyTree], Array | None]  # JaxMARL's state -> [A, n] bool
    decode: Callable[[Array, Array | None], dict[str, Array]]  # [A, U], mask -> one for each agent


def is_jaxmarl(name: str) -> bool:
    """True for names that start with "jaxmarl-"."""
    return name.startswith(PREFIX)


def jaxmarl(name: str, *, max_episode_steps: int | None = None, **options: Any) -> Env:
    """An environment of JaxMARL's.

    Args:
      name: "jaxmarl-" and an id that JaxMARL knows.
      max_episode_steps: at least 1; None: the number that JaxMARL's clock is given.
      **options: of JaxMARL's environment. SMAX's `scenario` can be the name of a map.

    Returns:
      Env with obs [A, O], action [A, U], reward [A]. `facts` has the agents' names, `agents`, and the lengths of their
      observations before padding, `obs_dims`.

    Raises:
      ImportError: JaxMARL is not installed; the message has the line that installs it.
      KeyError: an id or a map that JaxMARL does not know.
      ValueError: an environment whose agents cannot be stacked, or without a clock where no `max_episode_steps` is
        given; options that JaxMARL refuses, or that are the adapter's; a number out of range.
    """
    simulator, limit, is_stopped = _build(name, max_episode_steps, options)
    agents = list(simulator.agents)
    with _promoting():
        seen, inner = jax.eval_shape(simulator.reset, jax.random.key(0))
    dims = _obs_dims(name, {agent: seen[agent] for agent in agents})
    actions = _actions(name, simulator, agents, inner)

    def observe(seen: Mapping[str, Array], out: Array, mask: Array | None) -> Array:
        obs = jnp.where(out[:, None], 0.0, _stacked(seen, agents, max(dims)))
        return obs if not actions.is_masked else jnp.concatenate([obs, jnp.float32(mask)], axis=-1)

    def reset(key: Key) -> tuple[JaxmarlState, Array]:
        key_reset, key_steps = jax.random.split(key)
        with _promoting():
            seen, inner = simulator.reset(key_reset)
            mask = actions.allowed(inner)
        return JaxmarlState(inner, key_steps, mask, jnp.int32(0)), observe(seen, jnp.zeros(len(agents), bool), mask)

    def step(state: JaxmarlState, action: Array) -> tuple[JaxmarlState, TimeStep]:
        key, key_step = jax.random.split(state.key)
        with _promoting():
            taken = actions.decode(action, state.mask)
            seen, inner, reward, done, _ = simulator.step_env(key_step, state.inner, taken)
            mask = actions.allowed(inner)
        time = state.time + 1
        ended, is_late = jnp.asarray(done["__all__"], bool), time >= limit
        terminated = ended if is_stopped else ended & ~is_late
        out = jnp.stack([jnp.asarray(done[agent], bool) for agent in agents]) & ~ended
        rewards = jnp.stack([jnp.float32(reward[agent]) for agent in agents])
        timestep = TimeStep(observe(seen, out, mask), rewards, terminated, is_late & ~terminated)
        return JaxmarlState(inner, key, mask, time), timestep

    mask_dim = actions.size if actions.is_masked else 0
    spec = Spec(
        name=name,
        obs_dim=max(dims) + mask_dim,
        action_dim=actions.size,
        max_episode_steps=limit,
        num_agents=len(agents),
        num_actions=actions.num_actions,
        mask_dim=mask_dim,
    )
    return Env(reset, step, spec, {"agents": agents, "obs_dims": dims})


def _build(name: str, max_episode_steps: int | None, options: Mapping[str, Any]) -> tuple[Any, int, bool]:
    """JaxMARL's environment, the Env's clock, and whether JaxMARL's own never rings before it."""
    package, task = _import(name), name.removeprefix(PREFIX)
    if task not in package.registered_envs:
        raise unknown_name("environment of JaxMARL", task, package.registered_envs)
    for option in RESERVED:
        if option in options:
            raise ValueError(f"{name}: {option} is set by the adapter; the length is the option max_episode_steps.")
    options = _with_scenario(options)

    def build(**own: Any) -> Any:
        with quiet_loading():
            return package.make(task, **options, **own)

    try:
        simulator = build()
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error
    if hasattr(simulator, "num_inner_steps"):
        raise ValueError(f"{name} has episodes within its episodes (num_inner_steps); only plain ones are supported.")
    clock, theirs = next(((clock, getattr(simulator, clock)) for clock in CLOCKS if hasattr(simulator, clock)), ("", 0))
    limit = max_episode_steps if max_episode_steps is not None else int(theirs)
    if limit < 1:
        found = "JaxMARL has no clock for it" if max_episode_steps is None else f"max_episode_steps={limit}"
        raise ValueError(f"{name}: {found}; give max_episode_steps, at least 1.")
    if not clock:
        return simulator, limit, True
    restart = {"auto_reset": False} if hasattr(simulator, "auto_reset") else {}
    try:
        return build(**{clock: limit + 1}, **restart), limit, True
    except TypeError as error:
        if limit > theirs:
            raise ValueError(
                f"{name}: max_episode_steps={limit} must be at most {theirs}: JaxMARL's clock cannot be set."
            ) from error
        return simulator, limit, False


def _with_scenario(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with a map of SMAX's for its name."""
    if not isinstance(options.get("scenario"), str):
        return dict(options)
    from jaxmarl.environments.smax.smax_env import MAP_NAME_TO_SCENARIO

    if options["scenario"] not in MAP_NAME_TO_SCENARIO:
        raise unknown_name("map of SMAX", options["scenario"], MAP_NAME_TO_SCENARIO)
    return {**options, "scenario": MAP_NAME_TO_SCENARIO[options["scenario"]]}


def _obs_dims(name: str, seen: Mapping[str, Any]) -> list[int]:
    """The lengths of the agents' observations, which have to be vectors."""
    for agent, obs in seen.items():
        if len(getattr(obs, "shape", ())) != 1:
            found = f"an array {obs.shape}" if hasattr(obs, "shape") else f"a {type(obs).__name__}"
            raise ValueError(f"{name}: {agent} observes {found}; only one vector for each agent is supported.")
    return [obs.shape[0] for obs in seen.values()]


def _stacked(vectors: Mapping[str, Array], agents: list[str], size: int) -> Array:
    """The agents' vectors as rows [A, size] float32, zeros at the end of shorter ones."""
    padded = [jnp.pad(vectors[agent], (0, size - vectors[agent].shape[0])) for agent in agents]
    return jnp.stack(padded).astype(jnp.float32)


def _actions(name: str, simulator: Any, agents: list[str], inner: PyTree) -> _Actions:
    """The way to hand over actions of the agents' spaces."""
    spaces = [simulator.action_space(agent) for agent in agents]
    if all(hasattr(space, "n") for space in spaces):
        return _choices(simulator, agents, spaces, inner)
    if all(hasattr(space, "low") for space in spaces) and len({tuple(space.shape) for space in spaces}) == 1:
        low, high = _bounds(spaces, "low"), _bounds(spaces, "high")
        if low.ndim == 2 and np.isfinite([low, high]).all():
            return _numbers(agents, low, high)
    found = ", ".join(f"{agent} {_described(space)}" for agent, space in zip(agents, spaces, strict=True))
    raise ValueError(
        f"{name} has the actions {found}; supported are a choice for every agent, or a bounded box of the same length "
        "for each. Some of JaxMARL's environments have an option action_type."
    )


def _bounds(spaces: list[Any], side: str) -> np.ndarray:
    """[A, *shape] float32, one end of every box."""
    return np.stack([np.broadcast_to(np.asarray(getattr(space, side), np.float32), space.shape) for space in spaces])


def _numbers(agents: list[str], low: np.ndarray, high: np.ndarray) -> _Actions:
    """Numbers in [low, high], both [A, U]."""

    def decode(action: Array, mask: Array | None) -> dict[str, Array]:
        del mask
        scaled = low + 0.5 * (jnp.clip(action, -1.0, 1.0) + 1.0) * (high - low)
        return {agent: scaled[i] for i, agent in enumerate(agents)}

    return _Actions(low.shape[1], None, False, lambda inner: None, decode)


def _choices(simulator: Any, agents: list[str], spaces: list[Any], inner: PyTree) -> _Actions:
    """Choices out of n, where agents with fewer have the last ones forbidden."""
    counts = [int(space.n) for space in spaces]
    size = max(counts)
    exists = np.arange(size) < np.array(counts)[:, None]  # [A, n]
    legal = _legal(simulator, inner)

    def allowed(inner: PyTree) -> Array:
        if legal is None:
            return jnp.asarray(exists)
        return _stacked(legal(inner), agents, size) > 0

    def decode(action: Array, mask: Array | None) -> dict[str, Array]:
        index = decode_onehot(action, mask)
        return {agent: index[i].astype(spaces[i].dtype) for i, agent in enumerate(agents)}

    return _Actions(size, size, legal is not None or not exists.all(), allowed, decode)


def _legal(simulator: Any, inner: PyTree) -> Callable[[PyTree], dict[str, Array]] | None:
    """What tells the legal choices of a state; None: nothing does. Hanabi's has a name of its own."""
    for name in ("get_legal_moves", "get_avail_actions"):
        legal = getattr(simulator, name, None)
        try:
            if legal is not None:
                with _promoting():
                    jax.eval_shape(legal, inner)
                return legal
        except NotImplementedError:
            pass
    return None


def _described(space: Any) -> str:
    """`Box(5,)`, `Discrete(5)`."""
    size = f"({space.n})" if hasattr(space, "n") else getattr(space, "shape", "")
    return f"{type(space).__name__}{size}"


def _import(name: str) -> Any:
    """The package, without what it prints while it is imported."""
    before = {stream: getattr(sys, stream) for stream in ("stdout", "stderr", "__stdout__")}
    try:
        # On the way it sets sys.stdout to sys.__stdout__, and sys.stderr too, whatever they were.
        for stream in ("stdout", "__stdout__"):
            setattr(sys, stream, io.StringIO())
        import jaxmarl as package
    except ImportError as error:
        raise ImportError(f"{name} needs JaxMARL; install it with: pip install 'jaxdiff[marl]'") from error
    finally:
        for stream, value in before.items():
            setattr(sys, stream, value)
    return package


@contextlib.contextmanager
def _promoting() -> Iterator[None]:
    """JaxMARL needs rank promotion."""
    with jax.numpy_rank_promotion("allow"):
        yield
