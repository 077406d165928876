"""What is compared, and episodes of it: the same starts for all, task completion times and queues read off the task."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff import envs
from jaxdiff.envs.discrete import encode_onehot
from jaxdiff.envs.vec import make_system
from jaxdiff.multi import mad2rl
from jaxdiff.offloading.heuristics import HEURISTICS
from jaxdiff.types import Algorithm, Array, Env, Key, PyTree, TrainState

LEARNED = {"mad2rl": "chain", "pqmix": "mlp"}  # name -> mad2rl.Config.agent
METHODS = (*LEARNED, *HEURISTICS)
EVAL_SEED = 2_000_003  # of the episodes that all methods are measured on; far from the seeds of training
METRICS = {
    "delay": "task completion time in s, mean over clients and slots",
    "local": "a client's queue in GFLOP, mean over clients and slots",
    "rsu": "a queue of the roadside unit in GFLOP, mean over networks and slots",
    "server": "a service vehicle's queue in GFLOP, mean over vehicles and slots",
    "backlog": "all queues together in GFLOP, mean over slots",
    "last_backlog": "all queues together in GFLOP after the last slot",
    "return": "minus the sum of the slots' objectives",
}


class Point(NamedTuple):
    """A task: clients, service vehicles and V."""

    clients: int
    servers: int
    v: float

    def __str__(self) -> str:
        return f"{self.clients}c{self.servers}s-v{self.v:g}"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large everything is; every field is a flag."""

    hidden: tuple[int, ...] = (128, 128)
    num_steps: int = 5  # of a chain
    act_chains: int = 1  # averaged while acting
    beta_max: float = 10.0  # of a chain: x_M comes out exp(beta_max / 4) times as large, unless it is unlearned
    utility: str = "softmax"
    rewards: str = "symlog"
    reward_scale: float = 0.1
    mixer: str = "qmix"
    lr: float = 5e-4
    target_rate: float = 5e-3  # the paper's 1e-3 is for an update per slot
    batch_size: int = 64
    episodes: int = 1000  # of training, all environments of a lane together
    num_envs: int = 8
    updates_per_step: int = 2  # updates whenever every environment has moved by a slot
    replay_capacity: int = 30_000
    warmup: int = 300  # transitions with random actions
    seeds: int = 8
    eval_every: int = 100  # training episodes
    eval_episodes: int = 64


@struct.dataclass
class Weight:
    """As much of hyperparameters as the task reads."""

    lyapunov_weight: Array


Choose = Callable[[Key, Any, PyTree, Array, Array], Array]  # (key, state, env_state, obs, v) -> action, all [M, ...]


def make_env(point: Point) -> Env:
    """The task of a point, the rest by default."""
    return envs.make("vec", num_clients=point.clients, num_servers=point.servers, v=point.v)


def make_algorithm(name: str, sizes: Sizes, env: Env) -> Algorithm:
    """A name of LEARNED as an Algorithm."""
    config = mad2rl.Config(
        agent=LEARNED[name],
        hidden=sizes.hidden,
        num_steps=sizes.num_steps,
        act_chains=sizes.act_chains,
        beta_max=sizes.beta_max,
        utility=sizes.utility,
        rewards=sizes.rewards,
        mixer=sizes.mixer,
    )
    return mad2rl.make(config, env.spec)


def by_algorithm(algorithm: Algorithm) -> Choose:
    """A learned method's actions in a state of its training."""

    def choose(key: Key, state: TrainState, env_state: PyTree, obs: Array, v: Array) -> Array:
        del env_state, v
        return algorithm.act(key, state, obs, algorithm.init_memory(obs.shape[:1]))[0][:, 0]

    return choose


def by_heuristic(name: str, point: Point) -> Choose:
    """A heuristic's actions, which see the slot itself."""
    system = make_system(num_clients=point.clients, num_servers=point.servers, constants={"v": point.v})

    def choose(key: Key, state: None, env_state: PyTree, obs: Array, v: Array) -> Array:
        del state
        keys = jax.random.split(key, obs.shape[0])
        cut, node = jax.vmap(lambda k, slot: HEURISTICS[name](k, system, slot, v))(keys, env_state.slot)
        return encode_onehot(cut * system.num_nodes + node, system.num_actions)

    return choose


def make_episodes(choose: Choose, env: Env, count: int) -> Callable[..., dict[str, Array]]:
    """Builds (key, v, state) -> each of METRICS for `count` episodes side by side, [M].

    Starts, speeds and fading come from the key alone, whatever is chosen: methods are compared in pairs.
    """

    def episodes(key: Key, v: Array, state: Any) -> dict[str, Array]:
        key_reset, key_act = jax.random.split(key)
        assert env.bind is not None
        task = env.bind(Weight(v))

        def step(carry: PyTree, k: Array) -> tuple[PyTree, tuple[Array, PyTree]]:
            env_state, obs = carry
            action = choose(jax.random.fold_in(key_act, k), state, env_state, obs, v)
            env_state, out = jax.vmap(task.step)(env_state, action)
            return (env_state, out.obs), (jnp.mean(out.reward, axis=-1), env_state.outcome)

        start = jax.vmap(task.reset)(jax.random.split(key_reset, count))
        _, (reward, outcome) = jax.lax.scan(step, start, jnp.arange(env.spec.max_episode_steps))
        queues = {"local": outcome.queues.local, "rsu": outcome.queues.rsu, "server": outcome.queues.server}
        backlog = sum(jnp.sum(queue, axis=-1) for queue in queues.values())  # [T, M]
        return {
            "delay": jnp.mean(outcome.delay, axis=(0, 2)),
            **{name: jnp.mean(queue, axis=(0, 2)) for name, queue in queues.items()},
            "backlog": jnp.mean(backlog, axis=0),
            "last_backlog": backlog[-1],
            "return": jnp.sum(reward, axis=0),
        }

    return episodes
