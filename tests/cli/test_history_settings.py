"""Histories and chunks through the commands, and runs from before those settings existed."""

import json
from pathlib import Path
import shutil

import numpy as np
import pytest

from jaxdiff.cli import evaluate
from jaxdiff.cli import run as commands
from jaxdiff.cli.task import make_task
from jaxdiff.envs.probes import recall_episodes
from jaxdiff.io import files
from jaxdiff.io.runs import load_run

SETTINGS = """
from jaxdiff.cli.settings import base_config


def get_config(dataset):
    config = base_config("diffusion_bc")
    config.env, config.dataset, config.normalise_obs = "probe-recall", dataset, True
    config.model.policy.hidden, config.model.policy.num_levels, config.model.policy.num_steps = (4,), 2, 2
    config.batch_size, config.num_updates, config.eval_interval, config.eval_episodes = 8, 2, 2, 8
    return config
"""


def returns_of(folder: Path, *flags: str) -> np.ndarray:
    out = folder / "numbers.json"
    assert evaluate.main([str(folder), "--episodes=8", f"--out={out}", *flags]) == 0
    return np.concatenate([np.float32(pack["returns"]) for pack in files.read_json(out)["packs"]])


def test_histories_and_chunks_come_back_with_a_saved_policy(tmp_path, monkeypatch, compiled_once):
    """Acting again by training's own evaluation keys gives its episodes, through two decisions of two actions."""
    np.savez(tmp_path / "recall.npz", **recall_episodes(0, num_episodes=16))
    (tmp_path / "config.py").write_text(SETTINGS)
    folder = tmp_path / "run"
    line = [f"--config={tmp_path / 'config.py'}:{tmp_path / 'recall.npz'}", "--config.model.policy.network=lstm"]
    line += ["--config.history=3", "--config.action_chunk=2", "--lanes=vmap", f"--workdir={folder}"]
    assert commands.train(line) == 0
    (pack,) = load_run(folder).packs
    monkeypatch.setattr(evaluate, "FIRST_INDEX", int(pack.eval["step"][-1]))
    np.testing.assert_array_equal(returns_of(folder), pack.eval["returns"][-1])
    with pytest.raises(ValueError, match="changes the saved parameters: .*such a setting needs training"):
        evaluate.main([str(folder), "--set=model.policy.network=transformer"])


def without_new_settings(value):
    """A config, or whatever holds configs, as runs wrote it before there were histories."""
    if isinstance(value, list):
        return [without_new_settings(entry) for entry in value]
    if isinstance(value, dict):
        new = ("history", "action_chunk", "normalise_reward") if "batch_size" in value else ()
        return {key: without_new_settings(entry) for key, entry in value.items() if key not in new}
    return value


def test_a_run_from_before_histories_acts_and_is_planned_as_it_was(trained, tmp_path, monkeypatch):
    old = tmp_path / "old"
    shutil.copytree(trained, old)
    for path in [old / "run.json", *old.rglob("pack.json")]:
        before = files.read_json(path)
        files.write_json_atomic(path, without_new_settings(before))
        assert "history" not in json.dumps(files.read_json(path))
        assert "history" in json.dumps(before)
    packs = load_run(trained).packs
    monkeypatch.setattr(evaluate, "FIRST_INDEX", int(packs[0].eval["step"][-1]))
    in_training = np.concatenate([pack.eval["returns"][-1] for pack in packs])
    np.testing.assert_array_equal(returns_of(old, "--episodes=16"), in_training)
    plans: list[commands.Plan] = []
    monkeypatch.setattr(commands, "execute", lambda plan: plans.append(plan) or 0)
    assert commands.rerun([str(old), f"--workdir={tmp_path / 'again'}"]) == 0
    members = [member.config for pack in plans[0].packs for member in pack.members]
    assert len(members) == 3
    assert make_task(members[0]).algorithm.window is None
