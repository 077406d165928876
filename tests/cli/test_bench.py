"""`jaxdiff bench`: operations against a formula on paper, and the table's arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.cli import bench, bench_table, flops
from jaxdiff.cli import config as configs
from jaxdiff.cli.flops import matrix_flops
from jaxdiff.io import files

TINY = [
    "--config=diffusion_bc", "--config.batch_size=8", "--config.model.policy.hidden=4",
    "--config.model.policy.num_levels=2", "--config.model.policy.num_steps=2",
]  # fmt: skip


def layers(*widths: int) -> list[int]:
    """Multiply-adds of each layer of a perceptron, per row."""
    return [first * second for first, second in zip(widths, widths[1:], strict=False)]


def diffusion_ql_flops(batch: int, obs: int, action: int, hidden: tuple[int, ...], steps: int) -> int:
    """Operations of one update of Diffusion-QL (arXiv:2208.06193) with a time embedding of 16.

    A layer costs its multiply-adds forward, as much for the gradient of its weights, and as much again for the
    gradient of its input, where that is wanted.
    """
    policy, time = sum(layers(action + 16 + obs, *hidden, action)), layers(16, 32, 16)
    critic = layers(obs + action, *hidden, 1)
    chain = steps * batch * policy  # every call of a chain shares one level, so its embedding is one row
    critics = 2 * batch * sum(critic)
    # target actions and their values; the critics forward, weights, and inputs of all but the first layer
    for_critic = chain + steps * sum(time) + critics + 3 * critics - 2 * batch * critic[0]
    # imitation: one level per row; the first layer of the embedding needs no input gradient
    imitation = 3 * batch * policy + batch * (3 * sum(time) - time[0])
    chained = 3 * chain + steps * (3 * sum(time) - time[0])
    # the critics of the policy's actions forward, and the gradient of their inputs
    return 2 * (for_critic + imitation + chained + 2 * critics)


def test_operations_of_an_update_follow_the_formula():
    config = configs.load("diffusion_ql:paper").to_dict()
    task = bench.make_task(config)
    counted = matrix_flops(task.algorithm.update, *bench._one_update(task, config))
    assert counted == diffusion_ql_flops(batch=256, obs=17, action=6, hidden=(256, 256, 256), steps=5)


def test_operations_of_products_loops_and_branches():
    a, b = jnp.zeros((3, 4)), jnp.zeros((4, 5))
    assert matrix_flops(jnp.matmul, a, b) == 2 * 3 * 4 * 5
    batched = jax.jit(jax.vmap(jnp.matmul, in_axes=(0, None)))
    assert matrix_flops(batched, jnp.zeros((7, 3, 4)), b) == 7 * 2 * 3 * 4 * 5
    square = jnp.zeros((4, 4))
    assert matrix_flops(lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, length=6)[0], square) == 6 * 2 * 4**3
    assert matrix_flops(lambda x: jax.lax.cond(True, lambda x: x @ x @ x, lambda x: x @ x, x), square) == 2 * 2 * 4**3
    image, kernel = jnp.zeros((2, 3, 8)), jnp.zeros((5, 3, 3))  # [N, C, W], [O, I, W]: 6 outputs along W
    convolve = lambda x, k: jax.lax.conv(x, k, (1,), "VALID")  # noqa: E731
    assert matrix_flops(convolve, image, kernel) == 2 * (2 * 5 * 6) * (3 * 3)


def test_bench_writes_what_it_prints(compiled_once, monkeypatch, tmp_path, capsys):
    out = tmp_path / "bench.json"
    flags = ["--lanes=2", "--modes=map", "--seconds=0.01", "--repeats=2", f"--out={out}"]
    monkeypatch.setattr(flops, "PEAK_SECONDS", 0.01)
    monkeypatch.setattr(flops, "PEAK_SIZES", (64, 128))
    peaks = [flops.matrix_peak()]
    peaks.append(2 * peaks[0])
    monkeypatch.setattr(bench, "matrix_peak", iter(peaks).__next__)
    cache = jax.config.jax_compilation_cache_dir
    assert bench.main([*flags, *TINY]) == 0
    assert jax.config.jax_compilation_cache_dir == cache
    result, text = files.read_json(out), capsys.readouterr().out
    rows = result["rows"]
    assert [(row["lanes"], row["mode"]) for row in rows] == [(1, "vmap"), (2, "map")]
    policy, time = sum(layers(6 + 16 + 17, 4, 6)), layers(16, 32, 16)
    operations = 2 * 8 * (3 * policy + 3 * sum(time) - time[0])  # the noise level itself wants no gradient
    for row in rows:
        assert len(row["seconds"]) == 2
        rate = row["lanes"] * row["updates_per_measurement"] / np.median(row["seconds"])
        assert row["member_updates_per_second"] == pytest.approx(rate)
        assert row["relative"] == pytest.approx(rate / rows[0]["member_updates_per_second"])
        assert row["flops_per_second"] == pytest.approx(rate * operations)
        assert row["fraction_of_peak"] == pytest.approx(row["flops_per_second"] / result["peak_flops_per_second"])
        assert 0 < row["compile_seconds_cached"] < row["compile_seconds_cold"]
        assert f"| {row['lanes']} | {row['mode']} | {rate:.1f} |" in text
    assert [row["auto"] for row in rows] == [True, True]  # alone in its number of lanes
    assert result["peak_flops_per_second"] == max(peaks) > 0
    assert result["command"] == ["jaxdiff", "bench", *flags, *TINY]
    assert {"versions", "device_kind", "created", "config"} <= result.keys()
    assert result["flops_per_update"]["xla"] > 0


class Clock:
    """Programs whose updates take a hundredth of a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(bench.time, "perf_counter", lambda: self.now)

    def run(self, num_updates: int) -> None:
        self.now += 0.01 * num_updates


def test_measurement_is_grown_until_it_takes_long_enough(monkeypatch):
    clock = Clock(monkeypatch)
    count = bench._enough(clock, 2.0)
    assert 200 <= count <= 250
    row = bench_table.Row(4, "map", "", clock, 0.0, 0.0, count, [bench._timed(clock, count) for _ in range(3)])
    assert row.rate == pytest.approx(400.0)
    assert row.spread == pytest.approx(0.0, abs=1e-9)


def test_auto_is_chosen_among_the_modes_it_would_try(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    two, four = {"vmap": 1.0, "map": 0.98}, {"vmap": 1.0, "map": 0.97, "shard": 0.5, "pmap": 0.1}
    seconds = {(mode, lanes): took for lanes, times in ((2, two), (4, four)) for mode, took in times.items()}
    rows = [bench_table.Row(lanes, mode, "", None, 0, 0, 1, [took]) for (mode, lanes), took in seconds.items()]
    # pmap is never probed; map is not at least 5 % faster than vmap.
    assert bench_table.chosen_modes(rows) == {4: "shard", 2: "vmap"}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--lanes=0", "--lanes has '0'; give whole numbers from 1"),
        ("--lanes=two", "--lanes has 'two'"),
        ("--modes=vmap,rows", "--modes has 'rows'; allowed: vmap, map, shard, pmap"),
        ("--config=difusion_ql", "did you mean 'diffusion_ql'"),
        ("--config.batchsize=1", "did you mean 'batch_size'"),
        ("--repeat=2", "repeat"),
        ("stray", "unexpected argument 'stray'"),
    ],
)
def test_mistake_is_named_before_anything_runs(monkeypatch, argument, message):
    monkeypatch.setattr(bench, "make_task", None)
    monkeypatch.setattr(bench, "use_all_cores", lambda lanes: None)
    with pytest.raises((KeyError, ValueError), match=message):
        bench.main([argument])
