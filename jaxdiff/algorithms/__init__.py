"""Learning methods: `module.Config`, `module.HParams` and `module.make(config, spec) -> Algorithm`, one file each."""

from types import ModuleType

from jaxdiff.algorithms import diffusion_bc, diffusion_ql

ALGORITHMS: dict[str, ModuleType] = {"diffusion_bc": diffusion_bc, "diffusion_ql": diffusion_ql}

__all__ = ["ALGORITHMS"]
