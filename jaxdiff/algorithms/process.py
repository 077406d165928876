"""The noising and sampling of a model of actions or of plans: schedule, levels seen in training, sampler table."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxdiff import diffusion
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Key


class ProcessConfig(Protocol):
    """The fields of a config that say how noise is added and taken away."""

    @property
    def schedule(self) -> str: ...
    @property
    def beta_max(self) -> float: ...
    @property
    def kind(self) -> str: ...
    @property
    def num_levels(self) -> int: ...
    @property
    def sampler(self) -> str: ...
    @property
    def spacing(self) -> str: ...
    @property
    def t_end(self) -> float: ...
    @property
    def num_steps(self) -> int: ...


class Process(NamedTuple):
    """A schedule with its table.

    c_noise: level -> the network's noise input
    random_level(key, shape) -> level [*shape] as training sees it
    prior_std: of x_T for data of variance 1; 1 where variance is preserved
    """

    schedule: diffusion.Schedule
    table: diffusion.Table
    c_noise: Callable[[diffusion.Level], Any]
    random_level: Callable[[Key, tuple[int, ...]], diffusion.Level]
    prior_std: float


def check_process(config: ProcessConfig) -> None:
    """Refuses unknown names and numbers out of range.

    Raises:
      KeyError: an unknown schedule, kind, sampler or spacing.
      ValueError: step counts out of range, or a spacing that no config can hold.
    """
    known: dict[str, tuple[str, Any]] = {
        "schedule": (config.schedule, diffusion.SCHEDULES),
        "kind": (config.kind, diffusion.PARAMETERISATIONS),
        "sampler": (config.sampler, diffusion.SOLVERS),
        "spacing": (config.spacing, diffusion.GRIDS),
    }
    for field, (value, registry) in known.items():
        if value not in registry:
            raise unknown_name(field, value, registry)
    if config.spacing == "custom" or (config.spacing in diffusion.INDEX_SPACINGS and not config.num_levels):
        raise ValueError(
            f"spacing={config.spacing!r} with num_levels={config.num_levels}; 'custom' needs levels that no config "
            "holds, and spacings of a discrete chain need its num_levels >= 1. Choose uniform, logsnr or karras."
        )
    if config.num_steps < 1 or config.num_levels < 0:
        raise ValueError(
            f"num_steps={config.num_steps} and num_levels={config.num_levels}; a model needs num_steps >= 1 and "
            "num_levels >= 1, or 0 for continuous time."
        )
    if not 0.0 <= config.t_end < 1.0:
        raise ValueError(f"t_end={config.t_end}; allowed: 0 (clean data) to below 1; 1e-3 is usual for DPM-Solver.")


def make_schedule(config: ProcessConfig) -> diffusion.Schedule:
    """The noise schedule that a config names."""
    factory = diffusion.SCHEDULES[config.schedule]
    if config.schedule == "vp":
        return factory(beta_max=config.beta_max)
    if config.schedule in ("linear", "cosine_betas"):
        return factory(num_steps=config.num_levels or 1000)
    return factory()


def make_process(config: ProcessConfig) -> Process:
    """The process of a config.

    Networks see a step index, as the papers' do; a level between two training levels gets a fractional one.

    Raises:
      KeyError, ValueError: as `check_process`, or a kind that the schedule cannot express.
    """
    check_process(config)
    schedule = make_schedule(config)
    noisiest = diffusion.level_at(schedule, 1.0)
    if config.kind in ("eps", "score") and noisiest.alpha == 0.0:
        raise ValueError(
            f"kind={config.kind!r} is undefined on schedule={config.schedule!r}, where alpha(1) = 0; "
            "use 'flow', 'v' or 'x0'."
        )
    chain = {"num_levels": config.num_levels} if config.spacing in diffusion.INDEX_SPACINGS else {}
    table = diffusion.make_table(
        config.sampler, schedule, config.num_steps, t_end=config.t_end, spacing=config.spacing, grid=chain
    )
    scale, shift = (config.num_levels, -1.0) if config.num_levels else (1000.0, 0.0)

    def random_level(key: Key, shape: tuple[int, ...]) -> diffusion.Level:
        if config.num_levels:
            return diffusion.level_at(schedule, diffusion.discrete_times(key, shape, config.num_levels))
        return diffusion.level_at(schedule, diffusion.uniform_times(key, shape))

    prior_std = float(np.hypot(noisiest.alpha, noisiest.sigma))
    return Process(schedule, table, lambda level: scale * level.t + shift, random_level, prior_std)
