"""Brax's locomotion tasks: hopper, halfcheetah, walker2d and ant, entirely on the device.

Brax's returns are not MuJoCo's: bodies, contact and integrators differ per backend, so D4RL's reference scores do not
apply here and none are given; a study should measure its own random and expert returns.
"""

from collections.abc import Iterator
import contextlib
import io
import warnings

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.envs.quiet import quiet_loading
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Env, Key, PyTree, Spec, TimeStep

TASKS = ("hopper", "halfcheetah", "walker2d", "ant")
BACKENDS = ("spring", "positional", "generalized", "mjx")  # on a CPU, fastest to slowest (ant: mjx is fastest)


@struct.dataclass
class BraxState:
    """The physics and the clock; brax's own State also carries metrics, which it changes in place."""

    pipeline_state: PyTree
    time: Array  # [] int32, steps since reset


def brax_locomotion(task: str, *, backend: str = "spring", max_episode_steps: int = 1000) -> Env:
    """A brax task as an Env. Observations, rewards and health limits are brax's defaults.

    `terminated` is brax's done: the body is unhealthy (halfcheetah never is). `truncated` is the clock alone, and False
    on a step that also terminates.

    Args:
      task: one of TASKS. Observation and action sizes: hopper 11, 3; halfcheetah 17, 6; walker2d 17, 6; ant 27, 8.
      backend: one of BACKENDS. "spring" is brax's cheapest physics; compiling a step takes about 10 s on a CPU.
      max_episode_steps: at least 1.

    Returns:
      Env with actions clipped to [-1, 1], and `facts["backend"]`.

    Raises:
      KeyError: unknown task or backend.
      ValueError: max_episode_steps < 1.
    """
    if task not in TASKS:
        raise unknown_name("brax task", task, TASKS)
    if backend not in BACKENDS:
        raise unknown_name("brax backend", backend, BACKENDS)
    if max_episode_steps < 1:
        raise ValueError(f"max_episode_steps={max_episode_steps} must be at least 1")
    # mujoco.mjx prints on import when its optional warp is missing
    with _quiet(), quiet_loading(), contextlib.redirect_stdout(io.StringIO()):
        from brax import envs

        simulator = envs.get_environment(task, backend=backend)
        first = jax.eval_shape(simulator.reset, jax.random.key(0))
    spec = Spec(
        name=f"brax-{task}",
        obs_dim=first.obs.shape[0],
        action_dim=simulator.action_size,
        max_episode_steps=max_episode_steps,
    )

    def reset(key: Key) -> tuple[BraxState, Array]:
        with _quiet():
            state = simulator.reset(key)
        return BraxState(pipeline_state=state.pipeline_state, time=jnp.int32(0)), state.obs

    def step(state: BraxState, action: Array) -> tuple[BraxState, TimeStep]:
        zero = jnp.float32(0.0)
        before = envs.State(state.pipeline_state, obs=zero, reward=zero, done=zero)
        with _quiet():
            after = simulator.step(before, jnp.clip(action, -1.0, 1.0))
        time = state.time + 1
        terminated = after.done > 0.5
        truncated = (time >= max_episode_steps) & ~terminated
        new_state = BraxState(pipeline_state=after.pipeline_state, time=time)
        return new_state, TimeStep(after.obs, after.reward, terminated, truncated)

    return Env(reset, step, spec, {"backend": backend})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings brax gives on import, on loading and while being traced; it also needs rank promotion."""
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
        warnings.filterwarnings("ignore", "Brax System, pip", UserWarning)
        warnings.filterwarnings("ignore", "JAXopt is no longer maintained", DeprecationWarning)
        warnings.filterwarnings("ignore", "Accessing `.*` directly from `Data`", DeprecationWarning)
        yield
