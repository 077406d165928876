"""`jaxdiff tune`: one static choice after another, each trained as a study of its own, the next one chosen by scores.

  jaxdiff tune --config=FILE --space=NAME [--sweep=NAME,NAME] [--trials=20] [--workdir=DIR] [--dry_run]

`space_<name>()` of the config file returns {key: [choices], key: (low, high, "log" or "linear")}, as
`jaxdiff.points.sobol` takes it; a choice that is a dict sets all of its keys. A trial is a point of that space with all
points of --sweep, seeds and numbers of hparams.*, which share its program. Its score is its best setting's in the
report, the IQM over seeds at the last checkpoint. Optuna's TPE looks for the next point.

Trials are one growing study in one folder, so report, status and compare read it as any other. The same command goes
on where it was stopped; with more --trials, or a wider --sweep, it trains what is missing.
"""

from collections.abc import Sequence
import math
from pathlib import Path
from typing import NamedTuple

from absl import flags

from jaxdiff import points as combine
from jaxdiff.cli import config as configs
from jaxdiff.cli import config_files
from jaxdiff.cli import run as commands
from jaxdiff.cli.machine import use_all_cores, use_compilation_cache
from jaxdiff.cli.plan import Plan
from jaxdiff.cli.pretrained import inherit
from jaxdiff.cli.stopping import REQUEUE, StopRequest
from jaxdiff.cli.study import make_members
from jaxdiff.cli.suggesting import Known, Suggest, Values, choices, from_optuna, num_points, point_of, same
from jaxdiff.cli.work import Outcome, run_packs
from jaxdiff.io import files, stamp, storage
from jaxdiff.io.folders import RunDir
from jaxdiff.io.locks import held
from jaxdiff.io.report.results import collect
from jaxdiff.io.runs import load_run
from jaxdiff.io.tasks import NAMERS
from jaxdiff.suggest import did_you_mean

TRIES = 20  # suggestions in a row that may be known points, before one is drawn at random


class Score(NamedTuple):
    """What a finished trial reached."""

    value: float  # of its best setting; minus infinity where no seed stayed finite
    label: str  # that setting


def main(argv: list[str]) -> int:
    """`jaxdiff tune`."""
    flag_values = flags.FlagValues()
    commands.define_flags(flag_values)
    flags.DEFINE_string("space", "", "which space_<name> of the config to search", flag_values=flag_values)
    flags.DEFINE_integer("trials", 20, "how many points of it, with those that DIR has", 1, flag_values=flag_values)
    flags.DEFINE_integer("trial_seed", 0, "of the suggestions", 0, flag_values=flag_values)
    parsed = configs.parse(argv, flag_values, __doc__ or "")
    tuning = Tuning(["tune", *argv], parsed, from_optuna)
    use_all_cores(parsed.lanes)
    use_compilation_cache()
    if not parsed.dry_run:
        return tuning.run()
    from jaxdiff.cli.dry_run import describe

    print(tuning.about())
    following = tuning.following()
    if following is not None:
        print("The next one, as the others will be but for what they choose; each compiles a program of its own:\n")
        print(describe(tuning.plan([following])))
    return 0


class Tuning:
    """A search over a config's space, in one run folder.

    Args:
      command: as run.json names it.
      parsed: with the flags of `main`.
      suggest: says where to look next.

    Raises:
      KeyError: no such space, or a key that the config does not have.
      ValueError: a value that its key does not take, several tasks, or a folder elsewhere.
    """

    def __init__(self, command: Sequence[str], parsed: configs.Parsed, suggest: Suggest) -> None:
        known, self.name = config_files.spaces(parsed.config_path), parsed.flags.space
        if self.name not in known:
            hint = did_you_mean(self.name, known) if known else "it has none; add space_<name>()."
            raise KeyError(f"unknown --space={self.name!r} in {parsed.config_path.name}; {hint}")
        if parsed.flags.prepare or storage.is_remote(parsed.workdir or ""):
            raise ValueError("tune needs each trial's score before the next, so it trains here: no --prepare, no URL.")
        self.command, self.parsed, self.suggest, self.space = command, parsed, suggest, known[self.name]()
        self.inner = commands.study_points(parsed)
        self.config = inherit(parsed.config, parsed.overrides)
        self.folder = Path(parsed.workdir or commands.default_workdir(parsed.config_path.stem, [self.name]))
        self._check()
        self.trials: list[Values] = files.read_json(self._list) if self._list.is_file() else []

    @property
    def _list(self) -> Path:
        return self.folder / "trials.json"

    def run(self) -> int:
        """Trains until there are enough trials, or no further points. The exit code is as of `jaxdiff work`."""
        stamp.check_directory(self.folder)
        if not self.trials:
            self.trials = [self.suggest(self.space, [], self.parsed.flags.trial_seed)]
        with held(self.folder / ".tune.lock") as is_ours, StopRequest() as stop:
            if not is_ours:
                raise ValueError(f"another process tunes {self.folder}; wait for it, or choose another --workdir.")
            while True:
                plan, outcome = self._train(stop)
                if outcome.is_stopped:
                    return REQUEUE
                scores = self.scores()
                print(self._line(scores))
                following = self.following(scores)
                if following is None:
                    return commands.conclude(plan, outcome)
                self.trials.append(following)

    def plan(self, trials: Sequence[Values]) -> Plan:
        """The checked plan of some trials."""
        points = [point for trial in trials for point in self._points(trial)]
        study = (self.name, *self.parsed.sweep)
        return commands.planned(self.command, self.parsed, study, points, self.folder)

    def scores(self) -> list[Score | None]:
        """Of the trials, by what the folder has; None for one that is not finished, or failed."""
        if not RunDir(self.folder).run_json.is_file():
            return [None] * len(self.trials)
        run = load_run(self.folder)
        done = {member.id for pack in run.packs if pack.status == "finished" for member in pack.members}
        settings = [setting for setting in collect(run).settings if setting.last is not None]  # best first
        found: list[Score | None] = []
        for trial in self.trials:
            ids = {member.id for member in make_members(self.config, self._points(trial))}
            mine = [setting for setting in settings if ids & {result.member.id for result in setting.members}]
            best = Score(mine[0].last.iqm, mine[0].label) if mine and mine[0].last else Score(-math.inf, "non-finite")
            found.append(best if ids <= done else None)
        return found

    def following(self, scores: Sequence[Score | None] | None = None) -> Values | None:
        """The next trial; None where there are enough, or no point is left."""
        if len(self.trials) >= self.parsed.flags.trials:
            return None
        scores = self.scores() if scores is None else scores
        known: Known = [(t, -math.inf if s is None else s.value) for t, s in zip(self.trials, scores, strict=True)]
        seed = self.parsed.flags.trial_seed + TRIES * len(known)
        for attempt in range(TRIES):
            values = self.suggest(self.space, known, seed + attempt)
            if not any(same(values, trial) for trial in self.trials):
                return values
        drawn = combine.random_search(self.space, 1000, seed)
        return next((values for values in drawn if not any(same(values, trial) for trial in self.trials)), None)

    def about(self) -> str:
        """A line about the space and what of it is tried."""
        size = f"{len(self.space)} keys, {num_points(self.space)} points"
        there = f"{len(self.trials)} of {self.parsed.flags.trials} trials are in {self.folder}"
        return f"space {self.name!r}: {size}; {there}; {len(self.inner)} members each"

    def _points(self, trial: Values) -> list[dict[str, object]]:
        return combine.product([point_of(trial)], self.inner, names=(f"space {self.name!r}", "--sweep"))

    def _check(self) -> None:
        """Makes members of every choice, and of both ends of every range."""
        combine.random_search(self.space, 1)
        first = {key: choices(given)[0] for key, given in self.space.items()}
        trials = [{**first, key: choice} for key, given in self.space.items() for choice in choices(given)]
        make_members(self.config, [self._points(trial)[0] for trial in trials], self.name)
        points = [point for trial in trials for point in self._points(trial)]
        several = [key for key in NAMERS if len({point.get(key) for point in points}) > 1]
        if several:
            raise ValueError(f"tune compares scores on one task, and {several[0]!r} has several values; give one.")

    def _train(self, stop: StopRequest) -> tuple[Plan, Outcome]:
        self._note()
        plan, tasks = commands.prepare(self.plan(self.trials))
        self._note()
        return plan, run_packs(plan, plan.packs, tasks, stop)

    def _note(self) -> None:
        """Writes trials.json: of a run before its members are listed, and nothing into what is no run yet."""
        if RunDir(self.folder).run_json.is_file():
            files.write_json_atomic(self._list, self.trials)

    def _line(self, scores: Sequence[Score | None]) -> str:
        best = max((s for s in scores if s is not None), key=lambda s: s.value, default=None)
        last = "failed" if scores[-1] is None else f"{scores[-1].value:.4g} with {scores[-1].label}"
        told = "" if best is None else f"; best {best.value:.4g} with {best.label}"
        return f"trial {len(scores)} of {self.parsed.flags.trials}: {last}{told}"
