"""Learning methods: `module.Config`, `module.HParams` and `module.make(config, spec) -> Algorithm`, one file each."""

from types import ModuleType

from jaxdiff.algorithms import (
    bc,
    consistency_ac,
    cql,
    decision_diffuser,
    diffuser,
    diffusion_bc,
    diffusion_ql,
    dom2,
    dppo,
    edp,
    fbrac,
    fql,
    idql,
    ifql,
    iql,
    omar,
    qgpo,
    td3_bc,
)

ALGORITHMS: dict[str, ModuleType] = {
    "bc": bc,
    "consistency_ac": consistency_ac,
    "cql": cql,
    "decision_diffuser": decision_diffuser,
    "diffuser": diffuser,
    "diffusion_bc": diffusion_bc,
    "diffusion_ql": diffusion_ql,
    "dom2": dom2,
    "dppo": dppo,
    "edp": edp,
    "fbrac": fbrac,
    "fql": fql,
    "idql": idql,
    "ifql": ifql,
    "iql": iql,
    "omar": omar,
    "qgpo": qgpo,
    "td3_bc": td3_bc,
}

__all__ = ["ALGORITHMS"]
