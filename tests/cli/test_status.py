"""How a study stands, read from folders with made-up numbers while nobody or somebody works on them."""

import fcntl
import json
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import jaxdiff
from jaxdiff.cli import status, watching
from jaxdiff.io import standing
from jaxdiff.io.standing import QUIET_SECONDS, read_standing

UPDATES = 1000
NOW = 1_700_000_000.0


def make_pack(folder: Path, label: str, level: float, *, done: bool, rows: int = 10, lanes: int = 2) -> None:
    """Rows every 100 updates and 2 seconds; lane i scores level + i in its newest evaluation, less before."""
    folder.mkdir(parents=True)
    members = [
        {"id": f"{folder.name}-{i}", "label": label, "algorithm": "alpha", "overrides": {"seed": i}, "seed": i}
        for i in range(lanes)
    ]
    plan = {"id": folder.name, "lanes": "vmap", "config": {"checkpoint_interval": 100}, "num_updates": UPDATES}
    write(folder / "pack.json", {**plan, "members": members})
    clock = {"step": 100 * np.arange(1, rows + 1), "wall_seconds": 2.0 * np.arange(1, rows + 1)}
    np.savez(folder / "train.npz", **clock, alive=np.ones((rows, lanes), bool))
    ends = level + np.arange(lanes) + np.arange(-rows + 1, 1)[:, None]
    scores = ends[..., None] + np.array([-3.0, 3.0])  # two episodes
    np.savez(folder / "eval.npz", **clock, scores=scores.astype(np.float32), returns=10 * scores.astype(np.float32))
    if done:
        write(folder / "done.json", {"num_updates": UPDATES, "nonfinite": []})
    age(folder, 5)


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def age(folder: Path, seconds: float) -> None:
    """Makes every file of a pack that old at NOW."""
    for path in folder.iterdir():
        os.utime(path, (NOW - seconds, NOW - seconds))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Six listed packs of two members: two finished, one at work, one stopped, one failed, one waiting."""
    folder = tmp_path / "study"
    names = ["a", "b", "c", "d", "e", "f"]
    packs = [
        {"id": name, "members": [f"{name}-0", f"{name}-1"], "num_updates": UPDATES, "label": f"alpha {name}",
         "group": ""}
        for name in names
    ]  # fmt: skip
    make_pack(folder / "packs" / "a", "alpha lr=1", 50.0, done=True)
    make_pack(folder / "packs" / "b", "alpha lr=2", 70.0, done=True)
    make_pack(folder / "packs" / "c", "alpha lr=3", 60.0, done=False, rows=4)
    make_pack(folder / "packs" / "d", "alpha lr=3", 64.0, done=False, rows=5)
    age(folder / "packs" / "d", 2 * QUIET_SECONDS)
    (folder / "packs" / "e").mkdir()
    write(folder / "packs" / "e" / "failed.json", {"error": "OSError: the disk is full", "time": "now", "host": "one"})
    age(folder / "packs" / "e", 5)
    write(folder / "run.json", {"config": {}})
    write(folder / "packs.json", {"packs": packs})
    return folder


def states(found: standing.Standing) -> dict[str, str]:
    return {pack.id: pack.state for pack in found.packs}


def test_every_listed_pack_has_the_state_its_files_tell(study):
    found = read_standing(study, now=NOW)
    expected = {"a": "finished", "b": "finished", "c": "running", "d": "stopped", "e": "failed", "f": "waiting"}
    assert states(found) == expected
    assert (found.members, found.members_finished) == (12, 4)
    assert not found.is_done()


def test_updates_speed_and_time_left_are_those_of_the_rows(study):
    found = read_standing(study, now=NOW)
    done = 2 * (UPDATES + UPDATES + 400 + 500)
    assert (found.done, found.total) == (done, 12 * UPDATES)
    assert found.speed == pytest.approx(2 * 100 / 2.0)  # of c alone: d has stopped
    assert found.seconds_left == pytest.approx((12 * UPDATES - done) / 100)


def test_a_held_lock_is_a_running_pack_however_quiet_or_failed_it_was(study):
    for name in ("d", "e"):
        (study / "packs" / name / "lock").touch()
        age(study / "packs" / name, 100 * QUIET_SECONDS)
    free = states(read_standing(study, now=NOW))
    assert (free["d"], free["e"]) == ("stopped", "failed")
    with open(study / "packs" / "d" / "lock") as first, open(study / "packs" / "e" / "lock") as second:
        for file in (first, second):
            fcntl.flock(file, fcntl.LOCK_EX)
        found = states(read_standing(study, now=NOW))
    assert (found["d"], found["e"]) == ("running", "running")


def test_a_pack_is_given_the_time_of_three_checkpoints_before_it_counts_as_stopped(study):
    """Rows reach the disk at checkpoints, which may be far apart."""
    folder = study / "packs" / "d"
    plan = json.loads((folder / "pack.json").read_text())
    plan["config"]["checkpoint_interval"] = 50_000  # at 0.02 s per update: 1000 s
    write(folder / "pack.json", plan)
    age(folder, 2999)
    assert states(read_standing(study, now=NOW))["d"] == "running"
    age(folder, 3001)
    assert states(read_standing(study, now=NOW))["d"] == "stopped"


def test_rows_newer_than_a_failure_are_another_try(study):
    folder = study / "packs" / "c"
    write(folder / "failed.json", {"error": "RuntimeError: out of memory"})
    os.utime(folder / "failed.json", (NOW - 60, NOW - 60))
    assert states(read_standing(study, now=NOW))["c"] == "running"
    os.utime(folder / "failed.json", (NOW - 1, NOW - 1))
    assert states(read_standing(study, now=NOW))["c"] == "failed"


def test_settings_come_by_the_mean_of_the_newest_evaluation_and_non_finite_members_count_nowhere(study):
    write(study / "packs" / "b" / "done.json", {"nonfinite": [{"member": "b-1", "step": 500}]})
    found = read_standing(study, now=NOW)
    best = [(setting.label, setting.mean, setting.seeds, setting.step) for setting in found.settings()]
    thirds = np.mean([60.0, 61.0, 64.0, 65.0])
    assert best == [
        ("alpha lr=2", pytest.approx(70.0), 1, 1000),
        ("alpha lr=3", pytest.approx(thirds), 4, 400),
        ("alpha lr=1", pytest.approx(50.5), 2, 1000),
    ]
    assert found.nonfinite == 1


def test_a_member_that_died_while_its_pack_runs_is_counted(study):
    path = study / "packs" / "c" / "train.npz"
    table = dict(np.load(path))
    table["alive"][2:, 1] = False
    np.savez(path, **table)
    found = read_standing(study, now=NOW)
    assert found.nonfinite == 1
    assert next(s for s in found.settings() if s.label == "alpha lr=3").seeds == 3


def test_one_pack_without_scores_makes_all_returns(study):
    path = study / "packs" / "a" / "eval.npz"
    np.savez(path, **{name: value for name, value in np.load(path).items() if name != "scores"})
    found = read_standing(study, now=NOW)
    assert found.quantity == "returns"
    assert found.settings()[0].mean == pytest.approx(705.0)


def test_damaged_files_are_named_and_stop_nothing(study):
    (study / "packs" / "a" / "eval.npz").write_bytes(b"PK cut short")
    (study / "packs" / "c" / "pack.json").write_text("{")
    found = read_standing(study, now=NOW)
    assert states(found)["a"] == "finished"
    text = status.describe(found, NOW)
    assert "unreadable: a: eval.npz" in text and "unreadable: c: pack.json" in text


def test_folder_without_a_list_has_the_packs_it_has(study):
    (study / "packs.json").unlink()
    found = read_standing(study, now=NOW)
    assert list(states(found)) == ["a", "b", "c", "d", "e"]
    assert found.total == 8 * UPDATES


def test_finished_packs_are_not_read_again(study):
    before = read_standing(study, now=NOW)
    (study / "packs" / "a" / "pack.json").unlink()
    after = read_standing(study, before, now=NOW)
    assert after.packs[0] is before.packs[0]


def test_lines_say_what_was_read(study):
    text = status.describe(read_standing(study, now=NOW), NOW)
    for line in (
        "packs       2 finished, 1 running, 1 stopped, 1 failed, 1 waiting of 6",
        "members     4 finished of 12",
        "updates     5,800 of 12,000 member-updates (48.3 %)",
        "speed       100 member-updates/s",
        "time left   1 min at this speed",
        "last write  5 s ago",
        "running: c  update 400 of 1,000, 100/s, written 5 s ago, no process here holds it, alpha lr=3",
        "stopped: d  update 500 of 1,000, written 20 min ago",
        "failed: e  OSError: the disk is full",
        "best of 3 settings, mean of the newest evaluation (normalised score):",
    ):
        assert line in text
    ranked = text.split("best of")[1].splitlines()[1:]
    assert ranked[0].split() == ["70.50", "2", "seeds", "alpha", "lr=2"]
    assert ranked[1].endswith("alpha lr=3  (at 400 updates)")


def test_a_study_that_nobody_writes_to_is_said_to_be_quiet(study):
    later = NOW + 1800
    text = status.describe(read_standing(study, now=later), later)
    assert "quiet for 30 min; no worker is seen" in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")],
)
def test_times_are_spoken(seconds, words):
    assert status.spoken_time(seconds) == words


def test_command_prints_every_folder_and_exits_1_where_a_pack_failed(study, tmp_path, capsys):
    clean = tmp_path / "clean"
    make_pack(clean / "packs" / "a", "alpha", 1.0, done=True)
    write(clean / "run.json", {})
    assert status.main([str(clean)]) == 0
    assert status.main([str(clean), str(study)]) == 1
    printed = capsys.readouterr().out
    assert printed.count(str(clean)) == 2 and "1 failed" in printed


def test_watch_looks_until_everything_is_finished(study, capsys, monkeypatch):
    slept: list[float] = []

    def finish(seconds: float) -> None:
        slept.append(seconds)
        for name in "cdef"[: 2 * len(slept)]:
            (study / "packs" / name).mkdir(exist_ok=True)
            write(study / "packs" / name / "done.json", {"nonfinite": []})

    monkeypatch.setattr(watching.repeat, "__defaults__", (finish,))
    assert status.main([str(study), "--watch=7"]) == 0
    assert slept == [7.0, 7.0]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [words[1] for words in lines if words[:1] == ["packs"]] == ["2", "4", "6"]


def test_bare_watch_has_its_default_and_leaves_other_arguments_alone():
    assert watching.with_seconds(["a", "--watch", "--watch=3", "--open"]) == ["a", "--watch=10", "--watch=3", "--open"]


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not a run folder: it has no run.json"):
        status.main([str(tmp_path)])
    with pytest.raises(ValueError, match="no run folder was named"):
        status.main([])


def test_command_starts_no_jax(study):
    code = f"import sys; from jaxdiff.cli.main import main; main(['status', {str(study)!r}]); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(jaxdiff.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert "6" in done.stdout and not {"jax", "scipy", "flax", "rich"} & set(done.stdout.split())
