"""Warnings that only a state with its data's statistics can give: a target that the data never reached, for example."""

from collections.abc import Mapping, Sequence
import functools
import sys
from typing import Any

from jaxdiff import sweep, train
from jaxdiff.cli import hosts
from jaxdiff.cli.settings import algorithm_module, make_settings


def warn(lanes: train.Lane, configs: Sequence[Mapping[str, Any]]) -> None:
    """Prints to stderr, once each, what the algorithm's module has to say of the lanes of these configs.

    A module that has something to say offers advise(config, state) -> list of sentences.
    """
    told: dict[str, None] = {}
    for i, config in enumerate(configs):
        advise = getattr(algorithm_module(config["algorithm"]), "advise", None)
        if advise is not None:
            told.update(dict.fromkeys(advise(make_settings(config)[0], hosts.gather(sweep.lane_of(lanes.state, i)))))
    for sentence in told:
        _say(sentence)


@functools.cache  # a study and an evaluation build their task several times
def say_once(sentence: str) -> None:
    """Prints a warning to stderr, unless this process has said the same before."""
    _say(sentence)


def _say(sentence: str) -> None:
    if hosts.is_first():
        print(f"jaxdiff: warning: {sentence}", file=sys.stderr)
