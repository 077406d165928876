"""A run folder with made-up numbers in the layout that jaxdiff.io.runs reads: no training, no JAX."""

from collections.abc import Callable
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Q_WEIGHTS = (0.1, 1.0, 10.0)
SEEDS = (0, 1, 2, 3)
EVAL_STEPS = np.arange(0, 10_001, 1000)
TRAIN_STEPS = np.arange(100, 10_001, 100)
EPISODES = 10
LEVELS = {  # the final score that the made-up curves approach
    ("bc", None): 38.0,
    ("diffusion_ql", 0.1): 52.0,
    ("diffusion_ql", 1.0): 83.0,
    ("diffusion_ql", 10.0): 61.0,
    ("edp", 0.1): 47.0,
    ("edp", 1.0): 74.0,
    ("edp", 10.0): 30.0,
}
LAYOUT = ["########", "#OO##OO#", "#OO#OOO#", "##OOO###", "#OO#OOO#", "#O#OO#O#", "#OOO#OG#", "########"]
FAILED_AT = 4500  # edp q_weight=10, seed 2


def make_run(path: Path, *, scores: bool = True, label_suffix: str = "", env: str = "pointmaze-medium") -> Path:
    """7 settings (bc, and two algorithms at 3 q_weights) by 4 seeds in 4 packs, the last of which never finished.

    edp at q_weight=10 has one member that goes non-finite; diffusion_ql at q_weight=10 is the unfinished pack.
    """
    generator = np.random.default_rng(0)
    packs: dict[str, list[tuple[str, float | None]]] = {
        "p0-bc": [("bc", None)],
        "p1-dql": [("diffusion_ql", 0.1), ("diffusion_ql", 1.0)],
        "p2-edp": [("edp", q) for q in Q_WEIGHTS],
        "p3-dql": [("diffusion_ql", 10.0)],
    }
    for pack_id, settings in packs.items():
        _make_pack(path / "packs" / pack_id, settings, generator, scores, label_suffix)
    _write(path / "run.json", _stamp(path, env))
    walls = [[i, j] for i, row in enumerate(LAYOUT) for j, cell in enumerate(row) if cell == "#"]
    facts = {"layout": LAYOUT, "walls": walls, "goal": [6, 6], "wall_box": [-0.7, 0.3], "goal_radius": 0.5}
    _write(path / "facts.json", facts)
    return path


def _stamp(path: Path, env: str) -> dict[str, Any]:
    return {
        "command": ["jaxdiff", "sweep", "--config=q_weight.py", f"--config.env={env}", f"--workdir={path.name}", "a b"],
        "config": {"env": env, "batch_size": 256},
        "study": "q_weight",
        "versions": {"jax": "0.10.2", "jaxdiff": "0.1.0", "python": "3.11.7"},
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "git_dirty": True,
        "dataset": {
            "name": "pointmaze-medium-waypoints",
            "num_transitions": 100_000,
            "num_episodes": 166,
            "sha256": "ab" * 32,
            "return_mean": 120.0,
            "reference_scores": [13.13, 277.39],
        },
        "device_kind": "cpu",
        "device_count": 1,
        "created": "2026-01-02T03:04:05+00:00",
        "env": env,
    }


def _make_pack(
    folder: Path, settings: list[tuple[str, float | None]], generator: np.random.Generator, scores: bool, suffix: str
) -> None:
    members = [_member(algorithm, q, seed, suffix) for algorithm, q in settings for seed in SEEDS]
    is_done = folder.name != "p3-dql"
    eval_steps = EVAL_STEPS if is_done else EVAL_STEPS[:5]
    train_steps = TRAIN_STEPS if is_done else TRAIN_STEPS[:43]
    score, alive, train = [], [], {"bc_loss": [], "critic_loss": [], "q_mean": []}
    for member, (algorithm, q) in zip(members, [pair for pair in settings for _ in SEEDS], strict=True):
        failed = (algorithm, q, member["seed"]) == ("edp", 10.0, 2)
        level = LEVELS[algorithm, q] + 6 * generator.standard_normal()
        curve = 5 + (level - 5) * (1 - np.exp(-eval_steps / 2500)) + 3 * generator.standard_normal(len(eval_steps))
        score.append(curve[:, None] + 12 * generator.standard_normal((len(eval_steps), EPISODES)))
        healthy = (train_steps < FAILED_AT) if failed else np.ones(len(train_steps), bool)
        alive.append(healthy)
        noise = np.exp(0.15 * generator.standard_normal(len(train_steps)))
        critic = 30 * np.exp(-train_steps / 1500) * noise + 0.05 * (q or 1)
        values = {
            "bc_loss": (0.05 + 0.4 * np.exp(-train_steps / 2000)) * noise,
            "critic_loss": critic if algorithm != "bc" else np.full(len(train_steps), np.nan),
            "q_mean": (level * (1 - np.exp(-train_steps / 3000)) - 10) if algorithm != "bc" else np.nan * noise,
        }
        for name, column in values.items():
            train[name].append(np.where(healthy, column, np.nan))
    table = np.stack(score, axis=1)  # [T, L, M]
    returns = 13.13 + table / 100 * (277.39 - 13.13)
    seconds = eval_steps / 50.0
    columns = {"step": eval_steps, "wall_seconds": seconds, "returns": returns.astype(np.float32)}
    if scores:
        columns["scores"] = table.astype(np.float32)
    _save(folder / "eval.npz", {**columns, "lengths": np.full(table.shape, 600, np.int32)})
    metrics = {name: np.stack(column, axis=1).astype(np.float32) for name, column in train.items()}
    clock = {"step": train_steps, "wall_seconds": train_steps / 50.0, "alive": np.stack(alive, axis=1)}
    _save(folder / "train.npz", {**clock, **metrics})
    _save(folder / "rollouts.npz", _rollouts(len(members), generator))
    config = {"algorithm": settings[0][0], "env": "pointmaze-medium"}
    plan = {"id": folder.name, "lanes": "vmap", "config": config, "num_updates": 10_000, "members": members}
    _write(folder / "pack.json", plan)
    if is_done:
        _write(folder / "done.json", _done(members))


def _member(algorithm: str, q_weight: float | None, seed: int, suffix: str) -> dict[str, Any]:
    label = algorithm + (f" q_weight={q_weight:g}" if q_weight is not None else "") + suffix
    overrides: dict[str, Any] = {} if q_weight is None else {"hparams.q_weight": q_weight}
    identity = hashlib.sha256(f"{label} {seed}".encode()).hexdigest()[:12]
    overrides["seed"] = seed
    return {"id": identity, "label": label, "algorithm": algorithm, "overrides": overrides, "seed": seed}


def _done(members: list[dict[str, Any]]) -> dict[str, Any]:
    failed = [m["id"] for m in members if (m["algorithm"], m["seed"]) == ("edp", 2) and "q_weight=10" in m["label"]]
    return {
        "wall_seconds": 212.5,
        "compile_seconds": 11.4,
        "num_updates": 10_000,
        "member_updates_per_second": 10_000 * len(members) / 201.1,
        "nonfinite": [{"member": member, "step": FAILED_AT} for member in failed],
    }


def _rollouts(lanes: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    corners = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0], [5.0, 4.0], [6.0, 3.0], [4.0, 6.0], [6.0, 6.0]])
    along = np.linspace(0, len(corners) - 1, 120)
    path = np.stack([np.interp(along, np.arange(len(corners)), corners[:, axis]) for axis in (0, 1)], axis=-1) - 0.2
    offset = 0.08 * generator.standard_normal((lanes, 3, 1, 2))
    obs = path + offset + 0.02 * generator.standard_normal((lanes, 3, 120, 2))
    mask = np.ones((lanes, 3, 120), np.float32)
    mask[:, 1, 70:] = 0
    return {"obs": np.concatenate([obs, np.zeros_like(obs)], axis=-1).astype(np.float32), "mask": mask}


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


@pytest.fixture
def make_folder() -> Callable[..., Path]:
    return make_run


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "study")
