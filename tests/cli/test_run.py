"""`jaxdiff train` and `jaxdiff sweep` on a bandit: what lies on disk, a member that goes non-finite, wrong requests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxdiff.cli import main as cli
from jaxdiff.cli import run as commands
from jaxdiff.io import files
from jaxdiff.io.folders import RunDir
from jaxdiff.io.runs import Pack, load_run

CONFIG = """
from jaxdiff.cli.settings import base_config


def get_config(dataset):
    config = base_config("diffusion_bc")
    config.env, config.dataset = "probe-bandit", dataset
    config.model.policy.hidden, config.model.policy.time_dim = (4,), 4
    config.model.policy.num_levels = config.model.policy.num_steps = 1
    config.batch_size, config.num_updates, config.chunk = 8, 10, 3
    config.eval_interval, config.checkpoint_interval, config.eval_episodes, config.record_episodes = 4, 10, 8, 2
    return config


def sweep_rate():
    for lr in (1e-3, 1e30, 3e-4):
        yield {"hparams.lr": lr, "seed": 5}


def sweep_seed():
    for seed in (5, 6):
        yield {"seed": seed}


def sweep_seed_again():
    yield {"seed": 7}


def sweep_typo():
    yield {"hparams.ema_rat": 0.1}


def sweep_length():
    for num_updates in (4, 6):
        yield {"num_updates": num_updates}


def sweep_nothing():
    return []
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, bandit_data: Path, compiled_once: None) -> str:
    """The value of --config."""
    path = tmp_path_factory.mktemp("config") / "bandit.py"
    path.write_text(CONFIG)
    return f"{path}:{bandit_data}"


@pytest.fixture(scope="module")
def rates(config: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of three learning rates, the second far too large."""
    folder = tmp_path_factory.mktemp("runs") / "rates"
    assert cli.main(["sweep", f"--config={config}", "--sweep=rate", "--lanes=map", f"--workdir={folder}"]) == 0
    return folder


def only_pack(folder: Path) -> Pack:
    (pack,) = load_run(folder).packs
    return pack


def test_tables_have_a_row_per_chunk_and_per_evaluation(rates):
    pack = only_pack(rates)
    assert list(pack.train["step"]) == [3, 4, 6, 8, 9, 10]  # multiples of the chunk, and where something is due
    assert list(pack.eval["step"]) == [4, 8, 10]
    assert pack.train["bc_loss"].shape == (6, 3)
    assert pack.train["alive"].dtype == bool
    assert pack.eval["returns"].shape == pack.eval["scores"].shape == pack.eval["lengths"].shape == (3, 3, 8)
    assert pack.rollouts["obs"].shape == (3, 2, 1, 1)
    assert (np.diff(pack.train["wall_seconds"]) > 0).all()


def test_scores_are_the_returns_on_the_tasks_scale(rates):
    """probe-bandit: a uniform policy earns 2.375, the best 5."""
    table = only_pack(rates).eval
    np.testing.assert_allclose(table["scores"], 100 * (table["returns"] - 2.375) / (5.0 - 2.375), rtol=1e-4, atol=1e-4)
    assert set(np.unique(table["returns"])) <= {0.0, 1.5, 3.0, 5.0}
    assert (table["lengths"] == 1).all()


def test_members_keep_their_labels_settings_and_seeds(rates):
    pack = only_pack(rates)
    assert [m.label for m in pack.members] == [f"diffusion_bc lr={lr}" for lr in ("0.001", "1e+30", "0.0003")]
    assert [m.overrides["hparams.lr"] for m in pack.members] == [1e-3, 1e30, 3e-4]
    assert {m.seed for m in pack.members} == {5}
    assert pack.lanes == "map"
    assert pack.num_updates == 10


def test_a_member_that_goes_non_finite_is_reported_and_frozen(rates):
    pack = only_pack(rates)
    assert pack.done["nonfinite"] == [{"member": pack.members[1].id, "step": 0}]
    np.testing.assert_array_equal(pack.train["alive"], [[True, False, True]] * 6)
    assert np.isnan(pack.train["bc_loss"][:, 1]).all()
    assert np.isfinite(pack.train["bc_loss"][:, [0, 2]]).all()
    # Its policy is the untrained one at every evaluation, and is still evaluated.
    assert np.isfinite(pack.eval["returns"]).all()


def test_a_non_finite_member_is_in_the_printed_table_and_in_the_report(rates, config, capsys):
    capsys.readouterr()
    assert cli.main(["sweep", f"--config={config}", "--sweep=rate", "--lanes=map", f"--workdir={rates}"]) == 0
    table = capsys.readouterr().out
    (row,) = [line for line in table.splitlines() if "lr=1e+30" in line and line.lstrip()[0].isdigit()]
    assert row.split()[-1] == "1"
    assert "non-finite" in table.splitlines()[0]
    others = [line for line in table.splitlines() if "lr=0.0" in line and line.lstrip()[0].isdigit()]
    assert [line.split()[-1] for line in others] == ["0", "0"]
    assert "1 of 3 members became non-finite" in table
    assert "lr=1e+30" in (rates / "report.html").read_text()


def test_members_of_a_pack_with_a_bad_lane_equal_lone_runs(rates, config, tmp_path):
    """The first member trained alone by `jaxdiff train`: the same id, batches, losses and returns."""
    argv = ["train", f"--config={config}", "--config.hparams.lr=1e-3", "--config.seed=5", "--lanes=map"]
    assert cli.main([*argv, f"--workdir={tmp_path / 'lone'}"]) == 0
    lone, pack = only_pack(tmp_path / "lone"), only_pack(rates)
    assert lone.members[0].id == pack.members[0].id
    for table in ("train", "eval"):
        there, here = getattr(pack, table), getattr(lone, table)
        for column in here.keys() - {"wall_seconds", "step"}:
            np.testing.assert_allclose(there[column][:, 0], here[column][:, 0], rtol=1e-5, atol=1e-6, err_msg=column)


def test_members_that_share_a_seed_face_the_same_batches(rates):
    """Before the first update the losses differ by nothing but the learning rate: here they share weights and noise."""
    pack = only_pack(rates)
    losses = pack.train["bc_loss"][0, [0, 2]]
    assert losses[0] != losses[1]
    assert abs(losses[0] - losses[1]) < 0.05


def test_the_stamp_holds_what_is_needed_to_repeat_the_run(rates):
    stamp = files.read_json(RunDir(rates).run_json)
    assert stamp["command"][:2] == ["jaxdiff", "sweep"]
    assert stamp["study"] == "rate"
    assert stamp["env"] == "probe-bandit"
    assert [point["hparams.lr"] for point in stamp["config"]["points"]] == [1e-3, 1e30, 3e-4]
    assert stamp["config"]["lanes"] == "map"
    assert stamp["config"]["num_updates"] == 10
    assert len(stamp["dataset"]["sha256"]) == 64
    assert stamp["versions"]["jax"] == jax.__version__


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., commands.Plan]:
    """Parses a command line up to the point where something would run."""
    plans: list[Any] = []
    monkeypatch.setattr(commands, "execute", lambda plan: plans.append(plan) or 0)

    def plan(*argv: str) -> commands.Plan:
        assert cli.main(list(argv)) == 0
        return plans[-1]

    return plan


def test_two_studies_give_their_product_and_max_lanes_cuts_packs(planned, config):
    plan = planned("sweep", f"--config={config}", "--sweep=seed,length", "--lanes=map", "--max_lanes=1")
    assert plan.study == "seed,length"
    assert [(p["seed"], p["num_updates"]) for p in plan.points] == [(5, 4), (5, 6), (6, 4), (6, 6)]
    assert [len(pack.members) for pack in plan.packs] == [1, 1, 1, 1]
    whole = planned("sweep", f"--config={config}", "--sweep=seed,length", "--lanes=map")
    assert [[m.seed for m in pack.members] for pack in whole.packs] == [[5, 6], [5, 6]]


def test_a_run_without_a_workdir_gets_a_folder_of_its_own(planned, config):
    plan = planned("sweep", f"--config={config}", "--sweep=seed", "--lanes=map")
    assert plan.workdir.parent == Path("runs")
    assert plan.workdir.name.startswith("bandit-seed-")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "--sweep=seed"], "train runs one member; use `jaxdiff sweep`"),
        (["sweep"], "--sweep is missing; bandit.py has: rate, seed, seed_again, typo, length, nothing"),
        (["sweep", "--sweep=sed"], "unknown sweep 'sed' in bandit.py; did you mean 'seed'?"),
        (["sweep", "--sweep=seed,seed_again"], "both set 'seed'"),
        (["sweep", "--sweep=nothing"], "sweep 'nothing' has no points"),
        (["sweep", "--sweep=typo"], "unknown config key 'hparams.ema_rat'; did you mean 'hparams.ema_rate'?"),
        (["train", "--config.hparams.q_weight=1.0"], "unknown config key 'hparams.q_weight'"),
        (["train", "--config.model.policy.sampler=ddmp"], "unknown sampler 'ddmp'; did you mean 'ddpm'?"),
        (["train", "--config.env=probe-bandid"], "unknown environment 'probe-bandid'; did you mean 'probe-bandit'?"),
        (["train", "--config.env=probe-action"], "has observations of 1 and actions of 2 numbers"),
        (["train", "--config.dataset=missing.hdf5"], "missing.hdf5"),
        (["train", "--config.batch_size=0"], "batch_size=0; it must be at least 1"),
        (["train", "--config.algorithm=diffusion_cb"], "config.algorithm cannot be overridden"),
        (["train", "--lanes=fast"], "lanes"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_no_folder(config, tmp_path, capsys, argv, message):
    folder = tmp_path / "run"
    lanes = [] if any(arg.startswith("--lanes") for arg in argv) else ["--lanes=map"]
    assert cli.main([argv[0], f"--config={config}", *argv[1:], *lanes, f"--workdir={folder}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxdiff: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not folder.exists()


def test_a_folder_that_is_not_a_run_is_left_as_it_was(config, tmp_path, capsys):
    notes = tmp_path / "folder" / "report.html"
    notes.parent.mkdir()
    notes.write_text("mine")
    for folder, message in (
        (notes.parent, f"{notes.parent} is not a run folder and not empty: it has report.html; give a new or an empty"),
        (notes, f"{notes}: is a file, where a folder is needed; choose another --workdir"),
        (notes / "run", f"{notes}: is a file, where a folder is needed; choose another --workdir"),
    ):
        argv = ["train", f"--config={config}", "--config.dataset=missing.hdf5", "--lanes=map", f"--workdir={folder}"]
        assert cli.main(argv) == 2  # before the data are looked for
        assert message in capsys.readouterr().err
    assert [path.name for path in notes.parent.iterdir()] == ["report.html"]
    assert notes.read_text() == "mine"
