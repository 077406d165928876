"""Networks cut in two and handed to the roadside: what a decision costs in a slot, and the queues it leaves."""

from jaxdiff.offloading.allocation import GAMMAS, allocate, gamma_exact, gamma_paper
from jaxdiff.offloading.channel import gain_db, rate, rates, reachable
from jaxdiff.offloading.profiles import (
    ARCHITECTURES,
    CONVENTIONS,
    Layer,
    Profile,
    make_profile,
    standard_profiles,
)
from jaxdiff.offloading.slot import Outcome, Queues, Slot, bound_constant, decide_slot, empty_queues, lyapunov
from jaxdiff.offloading.system import System, Tables, kinds_from_counts, legal, split_action, tables

__all__ = [
    "ARCHITECTURES",
    "CONVENTIONS",
    "GAMMAS",
    "Layer",
    "Outcome",
    "Profile",
    "Queues",
    "Slot",
    "System",
    "Tables",
    "allocate",
    "bound_constant",
    "decide_slot",
    "empty_queues",
    "gain_db",
    "gamma_exact",
    "gamma_paper",
    "kinds_from_counts",
    "legal",
    "lyapunov",
    "make_profile",
    "rate",
    "rates",
    "reachable",
    "split_action",
    "standard_profiles",
    "tables",
]
