"""Solvers: each builds a `Table` from noise levels; `sample` runs any of them."""

from jaxdiff.diffusion.solvers.ancestral import consistency_chain, ddim, ddpm, dpm_solver_1
from jaxdiff.diffusion.solvers.edm import heun
from jaxdiff.diffusion.solvers.grid_index import INDEX_SPACINGS
from jaxdiff.diffusion.solvers.grids import GRIDS, grid_levels, uniform_grid
from jaxdiff.diffusion.solvers.loop import Projection, initial_noise, sample, sample_path
from jaxdiff.diffusion.solvers.multistep import dpmpp
from jaxdiff.diffusion.solvers.registry import SOLVERS, make_table
from jaxdiff.diffusion.solvers.sde import pf_ode, predictor_corrector, resample, reverse_sde
from jaxdiff.diffusion.solvers.singlestep import dpm_single, dpmpp_2s_ancestral, orders_for, stage_levels
from jaxdiff.diffusion.solvers.table import Combination, Table, align, rows, stack
from jaxdiff.diffusion.solvers.unipc import unipc

__all__ = [
    "GRIDS",
    "INDEX_SPACINGS",
    "SOLVERS",
    "Combination",
    "Projection",
    "Table",
    "align",
    "consistency_chain",
    "ddim",
    "ddpm",
    "dpm_single",
    "dpm_solver_1",
    "dpmpp",
    "dpmpp_2s_ancestral",
    "grid_levels",
    "heun",
    "initial_noise",
    "make_table",
    "orders_for",
    "pf_ode",
    "predictor_corrector",
    "resample",
    "reverse_sde",
    "rows",
    "sample",
    "sample_path",
    "stack",
    "stage_levels",
    "uniform_grid",
    "unipc",
]
