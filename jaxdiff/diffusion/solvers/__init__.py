"""Solvers: each builds a `Table` from noise levels; `sample` runs any of them."""

from collections.abc import Callable
import functools

from jaxdiff.diffusion.solvers.ancestral import ddim, ddpm
from jaxdiff.diffusion.solvers.grids import grid_levels, uniform_grid
from jaxdiff.diffusion.solvers.multistep import dpmpp
from jaxdiff.diffusion.solvers.table import Table, sample

SOLVERS: dict[str, Callable[..., Table]] = {
    "ddpm": ddpm,
    "ddpm_large": functools.partial(ddpm, variance="large"),
    "ddim": ddim,
    "dpmpp_1": functools.partial(dpmpp, order=1),
    "dpmpp_2m": functools.partial(dpmpp, order=2),
}

__all__ = ["SOLVERS", "Table", "ddim", "ddpm", "dpmpp", "grid_levels", "sample", "uniform_grid"]
