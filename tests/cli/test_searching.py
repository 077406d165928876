"""Sweeps that look at their scores: who is stopped, what survivors compute, what a population records, resume."""

from pathlib import Path

import numpy as np
import pytest

from jaxdiff.cli import main as cli
from jaxdiff.cli import work
from jaxdiff.cli.plan import from_folder
from jaxdiff.cli.restore import Restored, restore_pack
from jaxdiff.cli.searching import Halving, Population, read_search
from jaxdiff.io import files
from jaxdiff.io.digest import member_digests
from jaxdiff.io.folders import RunDir
from jaxdiff.io.report.answer import answer
from jaxdiff.io.report.results import collect
from jaxdiff.io.runs import Pack, load_run

pytestmark = pytest.mark.usefixtures("traced_once")

RATES = """

def sweep_rates():
    for rate in (1e-4, 3e-4, 1e-3, 3e-3):
        for seed in (0, 1):
            yield {"algorithm": "diffusion_bc", "hparams.lr": rate, "seed": seed, "num_updates": 8}
"""
UNEVEN = """

def sweep_uneven():
    for rate, seed in ((1e-3, 0), (3e-3, 0), (1e-3, 1)):
        yield {"algorithm": "diffusion_bc", "hparams.lr": rate, "seed": seed}
"""


@pytest.fixture(scope="module")
def rates(study: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Four settings of two seeds, eight updates, evaluated and saved after every second one."""
    path, _, data = study[0].removeprefix("--config=").partition(":")
    copy = tmp_path_factory.mktemp("rates") / "study.py"
    copy.write_text(Path(path).read_text() + RATES)
    return ["sweep", f"--config={copy}:{data}", "--sweep=rates", "--lanes=map"]


def run(rates: list[str], folder: Path, *flags: str) -> Pack:
    assert cli.main([*rates, f"--workdir={folder}", *flags]) == 0
    (pack,) = load_run(folder).packs
    return pack


@pytest.fixture(scope="module")
def plain(rates, tmp_path_factory) -> Pack:
    return run(rates, tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module")
def halved(rates, tmp_path_factory) -> Pack:
    return run(rates, tmp_path_factory.mktemp("halved") / "run", "--search=halving,reduction=2,rungs=3")


@pytest.fixture(scope="module")
def bred(rates, tmp_path_factory) -> Pack:
    return run(rates, tmp_path_factory.mktemp("bred") / "run", "--search=pbt,lr=1e-4:1e-2,resample=0.5")


def test_halving_stops_the_settings_that_are_behind_at_each_rung(plain, halved):
    """Rungs at 2 and 4 of 8: who goes on follows from the undisturbed run's own scores."""
    labels = [member.label for member in plain.members]
    left = sorted(set(labels), key=labels.index)
    expected = {}
    for row, step in ((0, 2), (1, 4)):
        assert plain.eval["step"][row] == step
        means = {label: np.mean([plain.eval["returns"][row, i].mean() for i, x in enumerate(labels) if x == label])
                 for label in left}  # fmt: skip
        kept = sorted(left, key=lambda label: -means[label])[: len(left) // 2]
        expected |= {m.id: step for m in plain.members if m.label in set(left) - set(kept)}
        left = [label for label in left if label in kept]
    assert len(left) == 1
    assert halved.stopped() == expected
    assert halved.done["member_updates"] == 8 * 2 + 4 * 2 + 2 * 4


def test_survivors_compute_what_they_would_have_without_a_search(plain, halved):
    stopped = halved.stopped()
    for i, member in enumerate(plain.members):
        for there, here in ((plain.train, halved.train), (plain.eval, halved.eval)):
            until = here["step"] <= stopped.get(member.id, 8)
            for name in there.keys() - {"step", "wall_seconds", "alive"}:
                np.testing.assert_array_equal(there[name][until, i], here[name][until, i], err_msg=name)
                if here[name].dtype.kind == "f":
                    assert np.isnan(here[name][~until, i]).all()
    assert halved.train["alive"].all()
    assert halved.nonfinite() == {}


def test_the_report_ranks_the_one_that_finished_first_and_says_what_was_stopped(halved):
    results = collect(load_run(halved.dir.path.parents[1]))
    assert [setting.standing for setting in results.settings] == ["", "stopped", "stopped", "stopped"]
    assert {s.last_step for s in results.settings[1:]} == {2, 4}
    assert all(setting.last is not None for setting in results.settings)
    assert "3 settings were stopped early (halving,reduction=2,rungs=3) and are ranked behind the rest." in answer(
        results
    )


@pytest.mark.parametrize("search", ["halving,reduction=2,rungs=3", "pbt,lr=1e-4:1e-2,resample=0.5"])
def test_a_search_that_was_stopped_goes_on_with_the_same_bits(rates, tmp_path, search, halved, bred):
    folder = tmp_path / "resumed"
    assert cli.main([*rates, f"--workdir={folder}", f"--search={search}", "--prepare"]) == 0
    plan = from_folder(folder, ["work"])
    assert plan.search == search
    tasks = work.Tasks(plan)
    for _ in range(3):  # at 2, 4 and 6
        assert work.run_packs(plan, plan.packs, tasks, lambda: True).is_stopped
    assert work.run_packs(plan, plan.packs, tasks, lambda: False).finished == 1
    whole = halved if search.startswith("halving") else bred
    there, here = load_run(whole.dir.path.parents[1]), load_run(folder)
    assert member_digests(there) == member_digests(here)
    for name in ("stopped", "nonfinite", "member_updates"):
        assert there.packs[0].done[name] == here.packs[0].done[name]


def test_a_damaged_checkpoint_of_fewer_lanes_gives_way_to_one_of_more(rates, halved, tmp_path):
    folder = tmp_path / "damaged"
    assert cli.main([*rates, f"--workdir={folder}", "--search=halving,reduction=2,rungs=3", "--prepare"]) == 0
    plan = from_folder(folder, ["work"])
    tasks = work.Tasks(plan)
    for _ in range(2):
        assert work.run_packs(plan, plan.packs, tasks, lambda: True).is_stopped
    checkpoints = RunDir(folder).pack(plan.packs[0].id).checkpoints
    assert [len(files.read_json(checkpoints / step / "card.json")["metadata"]["active"]) for step in "24"] == [4, 2]
    largest = max((p for p in (checkpoints / "4").rglob("*") if p.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(content)
    assert work.run_packs(plan, plan.packs, tasks, lambda: False).finished == 1
    assert member_digests(load_run(folder)) == member_digests(load_run(halved.dir.path.parents[1]))


def test_a_population_records_parents_and_rates_that_stay_in_range(plain, bred):
    parents, rates = bred.eval["parent"], bred.train["hparams.lr"]
    assert parents.shape == (4, 8)
    np.testing.assert_array_equal(parents[-1], np.arange(8))  # nobody is replaced after the last update
    moved = parents[:-1] != np.arange(8)
    assert 1 <= moved.sum() <= 6  # at most the worst of four in each of two populations, three times
    seeds = np.asarray([member.seed for member in bred.members])
    np.testing.assert_array_equal(seeds[parents], np.broadcast_to(seeds, parents.shape))  # of their own population
    assert ((rates >= np.float32(1e-4)) & (rates <= np.float32(1e-2))).all()
    for row, step in enumerate(bred.eval["step"][:-1]):
        scores = bred.eval["returns"][row].mean(axis=-1)
        for i in np.flatnonzero(moved[row]):
            assert scores[parents[row, i]] > scores[i]
        after, before = rates[bred.train["step"] == step + 2][0], rates[bred.train["step"] == step][0]
        np.testing.assert_array_equal(after[~moved[row]], before[~moved[row]])
    first = bred.train["step"] <= 2
    np.testing.assert_array_equal(plain.train["bc_loss"][first],
                                  bred.train["bc_loss"][first])  # fmt: skip


def restored(pack: Pack) -> Restored:
    run = RunDir(pack.dir.path.parents[1])
    plan, known = files.read_json(pack.dir.pack_json), files.read_json(run.run_json)
    return restore_pack(run, plan, known, env=None, episodes=2, checkpoint="last", overrides=[{}])


def test_what_is_left_of_a_halving_can_be_rolled_out(halved, tmp_path):
    found = restored(halved)
    left = [member.id for member in halved.members if member.id not in halved.stopped()]
    assert [member["id"] for member in found.members] == left
    assert found.lanes.alive.shape == (2,)
    out = tmp_path / "eval.json"
    assert cli.main(["eval", str(halved.dir.path.parents[1]), "--episodes=2", f"--out={out}"]) == 0
    (pack,) = files.read_json(out)["packs"]
    assert [member["id"] for member in pack["members"]] == left
    assert np.shape(pack["returns"]) == (2, 2)


def test_members_of_a_population_act_with_the_hyperparameters_they_ended_with(bred):
    np.testing.assert_array_equal(restored(bred).lanes.state.hparams.lr, bred.train["hparams.lr"][-1])
    assert len(np.unique(bred.train["hparams.lr"][-1])) > 1


def test_the_report_says_what_a_setting_is_in_a_population(bred):
    told = " ".join(answer(collect(load_run(bred.dir.path.parents[1]))))
    assert "a setting is where its members started" in told


def test_uneven_populations_are_refused(rates, tmp_path, capsys):
    config = tmp_path / "uneven.py"
    path, _, data = rates[1].removeprefix("--config=").partition(":")
    config.write_text(Path(path).read_text() + UNEVEN)
    line = ["sweep", f"--config={config}:{data}", "--sweep=uneven", f"--workdir={tmp_path / 'run'}"]
    assert cli.main([*line, "--search=pbt,lr=1e-4:1e-2"]) == 2
    assert "here they number [1, 2] under one program" in capsys.readouterr().err


def test_words_become_a_search():
    assert read_search("") is None
    assert read_search("halving,rungs=4") == Halving(3.0, 4)
    assert read_search("pbt,hparams.lr=1e-4:1e-2,quantile=0.5") == Population((("lr", (1e-4, 1e-2)),), 0.5)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("halvin", "unknown search 'halvin'; did you mean 'halving'"),
        ("halving,rung=2", "unknown option of --search=halving 'rung'; did you mean 'rungs'"),
        ("halving,rungs=few", "rungs=few must be a number"),
        ("halving,rungs=9", "fall together"),
        ("pbt", "names no hyperparameter"),
        ("pbt,lr=1e-3", "must be a range LOW:HIGH"),
        ("pbt,lr=1e-2:1e-4", "must ascend from above 0"),
        ("pbt,rate=1e-4:1e-2", "unknown hyperparameter 'rate'"),
        ("pbt,lr=1e-3:1e-2", "a member starts with hparams.lr=0.0001"),
        ("halving,reduction=1", "reduction=1.0; it must be above 1"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(rates, tmp_path, capsys, search, message):
    assert cli.main([*rates, f"--workdir={tmp_path / 'run'}", f"--search={search}"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_program_whose_members_lie_in_several_packs_is_refused(rates, tmp_path, capsys):
    assert cli.main([*rates, f"--workdir={tmp_path / 'run'}", "--search=halving,reduction=2", "--max_lanes=4"]) == 2
    assert "8 members of one program lie in 2; give --max_lanes=8" in capsys.readouterr().err


def test_another_search_in_the_same_folder_is_another_run(rates, halved, capsys):
    folder = halved.dir.path.parents[1]
    assert cli.main([*rates, f"--workdir={folder}", "--search=halving,reduction=2,rungs=2"]) == 2
    assert "holds another run: search is" in capsys.readouterr().err
