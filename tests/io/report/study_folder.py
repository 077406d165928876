"""Run folders of large studies with made-up numbers: random search over six keys, a few seeds of each setting."""

import json
from pathlib import Path
from typing import Any

import numpy as np

METRICS = ("actor_loss", "bc_loss", "critic_loss", "grad_norm", "q_mean", "q_std", "target_q", "entropy", "td_error")


def make_study(
    path: Path,
    *,
    settings: int = 32,
    seeds: int = 8,
    lanes: int = 64,
    evaluations: int = 50,
    metrics: int = 10,
    failed: int = 0,
    algorithms: tuple[str, ...] = ("alpha",),
) -> Path:
    """Settings drawn at random; the score is best at lr=1e-3 and rises with q_weight; the other keys do nothing.

    Args:
      path: folder to make.
      settings: number of them, taking turns between `algorithms`.
      seeds: of every setting.
      lanes: members of a pack.
      evaluations: of every member, at every 1000 updates.
      metrics: columns of train.npz, "bc_loss" and "critic_loss" among them.
      failed: the last so many settings go non-finite with all their seeds, halfway.
      algorithms: names.
    """
    generator = np.random.default_rng(0)
    drawn = [_point(algorithms[index % len(algorithms)], generator) for index in range(settings)]
    members = [_member(index, *pair, seed) for index, pair in enumerate(drawn) for seed in range(seeds)]
    lost = {member["id"] for member in members[(settings - failed) * seeds :]}
    for number, start in enumerate(range(0, len(members), lanes)):
        folder, side_by_side = path / "packs" / f"p{number:03d}", members[start : start + lanes]
        _make_pack(folder, side_by_side, lost, evaluations, metrics, generator)
    stamp = {
        "command": ["jaxdiff", "sweep", "--config=alpha", "--sweep=random", f"--workdir={path.name}"],
        "config": {"env": "hopper", "algorithm": algorithms[0]},
        "study": "random",
        "env": "hopper",
        "dataset": {"name": "hopper-medium", "return_mean": 1000.0, "reference_scores": [0.0, 3000.0]},
        "device_kind": "cpu",
        "device_count": 2,
        "created": "2026-01-02T03:04:05+00:00",
    }
    (path / "run.json").write_text(json.dumps(stamp))
    return path


def truth(point: dict[str, Any]) -> float:
    """The score that a setting's seeds scatter around: 80 at best."""
    lr, q_weight = np.log10(point["hparams.lr"] / 1e-3), np.log10(point["hparams.q_weight"])
    return float(80 - 25 * lr**2 - 10 * (1 - q_weight) ** 2)


def _point(algorithm: str, generator: np.random.Generator) -> tuple[str, dict[str, Any]]:
    return algorithm, {
        "hparams.lr": float(f"{10 ** generator.uniform(-4, -2):.3g}"),
        "hparams.q_weight": float(f"{10 ** generator.uniform(-1, 1):.3g}"),
        "hparams.polyak": float(f"{generator.uniform(0.001, 0.02):.3g}"),
        "model.num_candidates": int(generator.choice([1, 4, 16, 64])),
        "model.policy.sampler": str(generator.choice(["ddpm", "ddim", "dpmpp"])),
        "model.layer_norm": bool(generator.integers(2)),
        "algorithm": algorithm,
    }


def _member(index: int, algorithm: str, point: dict[str, Any], seed: int) -> dict[str, Any]:
    shown = " ".join(f"{key.split('.')[-1]}={value}" for key, value in point.items() if key != "algorithm")
    overrides = {**point, "seed": seed}
    label = f"{algorithm} {shown}"
    return {"id": f"m{index:04d}-{seed}", "label": label, "algorithm": algorithm, "overrides": overrides, "seed": seed}


def _make_pack(
    folder: Path, members: list[dict], lost: set[str], evaluations: int, metrics: int, generator: np.random.Generator
) -> None:
    folder.mkdir(parents=True)
    steps = 1000 * np.arange(1, evaluations + 1)
    level = np.array([truth(member["overrides"]) for member in members]) + 4 * generator.standard_normal(len(members))
    rise = 1 - np.exp(-steps / (200.0 * evaluations))
    scores = (rise[:, None] * level + 2 * generator.standard_normal((len(steps), len(members))))[..., None]
    scores = scores + 5 * generator.standard_normal((*scores.shape[:2], 4))
    half = int(steps[len(steps) // 2])
    dead = np.array([member["id"] in lost for member in members])
    alive = ~(dead[None] & (steps[:, None] >= half))
    clock = {"step": steps, "wall_seconds": steps / 50.0}
    table = {"scores": scores.astype(np.float32), "returns": 30 * scores.astype(np.float32)}
    np.savez(folder / "eval.npz", **clock, **table)
    names = [METRICS[i] if i < len(METRICS) else f"extra_{i:02d}" for i in range(metrics)]
    noise = np.exp(0.4 * generator.standard_normal((metrics, len(steps), len(members))))
    wave = np.exp(-steps / 9000.0)[:, None] * noise
    columns = {name: np.where(alive, wave[i], np.nan).astype(np.float32) for i, name in enumerate(names)}
    np.savez(folder / "train.npz", **clock, alive=alive, **columns)
    updates = int(steps[-1])
    plan = {"id": folder.name, "lanes": "vmap", "config": {"env": "hopper"}, "num_updates": updates, "members": members}
    (folder / "pack.json").write_text(json.dumps(plan))
    done = {
        "wall_seconds": 3600.0,
        "compile_seconds": 12.0,
        "num_updates": updates,
        "member_updates_per_second": updates * len(members) / 3600.0,
        "nonfinite": [{"member": m["id"], "step": half} for m in members if m["id"] in lost],
    }
    (folder / "done.json").write_text(json.dumps(done))
