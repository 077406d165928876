"""Several processes as one, over loopback: the bits of one process, also when one of them was told to stop."""

from collections.abc import Callable
import os
from pathlib import Path
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import jaxdiff
from jaxdiff.cli import hosts, run, work
from jaxdiff.cli import main as cli
from jaxdiff.cli.restore import restore_pack
from jaxdiff.cli.stopping import REQUEUE
from jaxdiff.io import files, stamp
from jaxdiff.io.folders import PackDir, RunDir
from jaxdiff.io.remote import scratch_of
from jaxdiff.io.runs import read_plan

COMMAND = "import sys; from jaxdiff.cli.main import main; sys.exit(main(sys.argv[1:]))"
UPDATES = 60
# Three members, which two processes of one device fill up to four lanes.
SEEDS = """

def sweep_seeds():
    for seed in range(3):
        yield {"algorithm": "diffusion_bc", "seed": seed}
"""


@pytest.fixture
def prepare(study: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Lanes and further flags -> the prepared folder of three members in one pack, which may be stopped anywhere."""
    path, _, data = study[0].removeprefix("--config=").partition(":")
    (tmp_path / "study.py").write_text(Path(path).read_text() + SEEDS)
    line = ["sweep", f"--config={tmp_path / 'study.py'}:{data}", "--sweep=seeds", f"--config.num_updates={UPDATES}"]
    line += ["--config.chunk=1", "--config.eval_interval=30", "--config.checkpoint_interval=10"]

    def make(name: str, *further: str) -> Path:
        for module in (run, work):  # devices are asked for before JAX has started
            monkeypatch.setattr(module, "use_all_cores", lambda lanes: None)
        monkeypatch.setenv("JAXDIFF_SCRATCH", str(tmp_path / "disk"))
        given = name if "://" in name else tmp_path / name
        assert cli.main([*line, f"--workdir={given}", *further, "--prepare"]) == 0
        return tmp_path / name

    return make


def start(folder: Path | str, *disks: Path) -> list[subprocess.Popen[str]]:
    """Two processes of one device each that work on a folder together; of a URL each on a disk of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [sys.executable, "-c", COMMAND, "work", str(folder), "--distributed", f"--coordinator=127.0.0.1:{port}"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(jaxdiff.__file__).parents[1]),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
    }
    return [
        subprocess.Popen([*line, "--num_processes=2", f"--process_id={i}"], stderr=subprocess.PIPE, text=True,
                         env={**environment, **({"JAXDIFF_SCRATCH": str(disks[i])} if disks else {})})
        for i in range(2)
    ]  # fmt: skip


def end(processes: list[subprocess.Popen[str]], code: int) -> list[str]:
    """Waits; what they wrote to stderr."""
    try:
        said = [process.communicate(timeout=200)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [code, code], said
    return said


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(card.parent.name) for card in folder.glob("packs/*/checkpoints/*/card.json"))


def only_pack(folder: Path) -> PackDir:
    (name,) = RunDir(folder).list_packs()
    return RunDir(folder).pack(name)


def saved(folder: Path) -> list[np.ndarray]:
    """The members' states in the last checkpoint, and their keys."""
    plan, known = read_plan(only_pack(folder).pack_json), stamp.read_stamp(folder)
    lanes = restore_pack(RunDir(folder), plan, known, env=None, episodes=1, checkpoint="last", overrides=[{}]).lanes
    return [np.asarray(leaf) for leaf in (*jax.tree.leaves(lanes.state), jax.random.key_data(lanes.key))]


def assert_same_run(first: Path, second: Path) -> None:
    """Tables, recorded episodes and the states of the last checkpoint, bit for bit; clocks and lane modes left out."""
    there, here = only_pack(first), only_pack(second)
    for a, b in ((there.train, here.train), (there.eval, here.eval), (there.rollouts, here.rollouts)):
        old, new = files.read_npz(a), files.read_npz(b)
        assert old.keys() == new.keys()
        for column in old.keys() - {"wall_seconds"}:
            np.testing.assert_array_equal(old[column], new[column], err_msg=f"{a.name}: {column}")
    for old, new in zip(saved(first), saved(second), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_two_processes_end_with_the_bits_of_one_also_when_the_second_is_told_to_stop(prepare, tmp_path):
    """One process runs lanes=map; two run lanes=shard, which on a CPU is map within each of them.

    They work on a URL with a disk each. What was stopped goes on in two processes, the first one on the disk that has
    nothing of it, and a copy of the other disk in one process.
    """
    url, disks = f"file://{tmp_path / 'bucket'}", [tmp_path / "disk0", tmp_path / "disk1"]
    alone = prepare("alone", "--lanes=map")
    prepare(url)
    first, second = (scratch_of(url, {"JAXDIFF_SCRATCH": str(disk)}) for disk in disks)
    assert cli.main(["work", str(alone)]) == 0
    processes, deadline = start(url, *disks), time.monotonic() + 200
    while not checkpoints(first):
        assert all(process.poll() is None for process in processes), end(processes, 0)
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.005)
    processes[1].send_signal(signal.SIGTERM)
    told = end(processes, REQUEUE)
    assert "stopped and saved at update" in told[0]
    assert "stopped and saved" not in told[1]
    assert max(checkpoints(first)) < UPDATES
    assert not checkpoints(second)
    elsewhere = shutil.copytree(first, tmp_path / "elsewhere")
    end(start(url, *disks[::-1]), 0)
    together = tmp_path / "bucket"
    assert only_pack(together).is_done()
    assert files.read_json(only_pack(together).pack_json)["lanes"] == "shard"
    assert_same_run(alone, together)
    assert not only_pack(elsewhere).is_done()
    assert cli.main(["work", str(elsewhere)]) == 0  # one device, so three lanes and none that fills up
    assert_same_run(alone, elsewhere)


@pytest.mark.slow
def test_two_processes_that_share_each_batch_train_as_one(prepare):
    alone, together = prepare("alone", "--lanes=map"), prepare("together", "--lanes=data")
    assert cli.main(["work", str(alone)]) == 0
    end(start(together), 0)
    assert files.read_json(only_pack(together).pack_json)["lanes"] == "data"
    old, new = (files.read_npz(only_pack(folder).train) for folder in (alone, together))
    assert old.keys() == new.keys()
    for column in old.keys() - {"wall_seconds"}:
        np.testing.assert_allclose(old[column], new[column], rtol=1e-4, err_msg=column)
    for a, b in zip(saved(alone), saved(together), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def test_lanes_of_one_process_are_refused_with_the_reason(prepare, capsys):
    folder = prepare("refused", "--lanes=vmap")
    assert cli.main(["work", str(folder), "--distributed"]) == 2
    message = capsys.readouterr().err
    assert "was prepared with --lanes=vmap, which runs on the devices of one process" in message
    assert "takes shard and data" in message


def test_an_incomplete_or_impossible_place_among_the_processes_is_refused():
    with pytest.raises(ValueError, match="--coordinator=here:1 --num_processes=2 --process_id=None: give all three"):
        hosts.join("here:1", 2, None)
    with pytest.raises(ValueError, match="--process_id=2 must be 0 to 1"):
        hosts.join("here:1", 2, 2)


def test_with_one_process_nothing_waits_and_nothing_changes():
    tree = {"a": jax.numpy.arange(3), "key": jax.random.key(0)}
    assert hosts.gather(tree)["a"] is tree["a"]
    assert hosts.gather(tree)["key"] is tree["key"]
    assert hosts.is_first()
    assert not hosts.are_many()
    assert hosts.agreed(False) is False
    assert hosts.any_of(lambda: True)()
