"""The timing of plans beside PyTorch: what it times in JAX, its tables, and, with PyTorch, that both are the same."""

import dataclasses
from pathlib import Path
import sys
import tomllib

import jax
import numpy as np
import pytest

from experiments.studies import plan_speed
from experiments.studies.plan_speed import JAX, TORCH, Name

TINY = dataclasses.replace(plan_speed.UNET, width=8, mults=(1,), horizon=8, num_levels=20, num_steps=2)
SAMPLERS = ("ddpm", "dpmpp_2m")


def test_without_torch_the_message_is_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError) as caught:
        plan_speed.import_torch_side()
    assert str(caught.value) == "pip install 'jaxdiff[bench]'"
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    assert [line for line in project["optional-dependencies"]["bench"] if line.startswith("torch>")]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_jax_draws_plans_that_hold_the_known_ends_exactly(sampler):
    config = dataclasses.replace(TINY, sampler=sampler)
    ends = plan_speed.known_ends(3)
    program = plan_speed.jax_program(config, plan_speed.init_params(config), ends, jax.jit)
    plans = program.draw(0)
    assert plans.shape == (3, 8, 6)
    np.testing.assert_array_equal(plans[:, [0, -1], 2:], ends)
    assert np.abs(plans).max() <= 1.0
    inside = program.draw(1)[:, 1:-1] - plans[:, 1:-1]
    assert np.abs(inside).max() > 1e-3
    assert program.compile_seconds > 0.0


def test_published_network_is_the_one_of_the_released_config():
    shown = {field: getattr(plan_speed.UNET, field) for field in ("width", "mults", "kernel_size", "horizon", "patch")}
    assert shown == {"width": 32, "mults": (1, 4, 8), "kernel_size": 5, "horizon": 128, "patch": 1}
    assert [config.num_steps for config in plan_speed.CASES.values()] == [64, 10]
    assert {config.num_levels for config in plan_speed.CASES.values()} == {64}


def test_rounds_alternate_and_rates_count_every_plan_of_a_batch(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(plan_speed.time, "perf_counter", lambda: clock[0])
    order: list[str] = []

    def taking(seconds, name):
        def draw(seed):
            clock[0] += seconds
            order.append(name)

        return draw

    names = Name("case", 4, JAX), Name("case", 4, TORCH)
    rates = plan_speed.time_programs({names[0]: taking(0.5, "a"), names[1]: taking(3.0, "b")}, 2, 1.0)
    assert order == ["a", "a", "b"] + ["a", "a", "b"] + ["b", "a", "a"]
    np.testing.assert_allclose(rates[names[0]], [8.0, 8.0])
    np.testing.assert_allclose(rates[names[1]], [4.0 / 3.0] * 2)


def test_tables_show_medians_and_ratios_of_rounds():
    first, other = next(iter(plan_speed.CASES)), next(iter(plan_speed.OTHERS))
    rates = {
        Name(first, 64, JAX): [10.0, 30.0, 20.0],
        Name(first, 64, TORCH): [5.0, 10.0, 20.0],
        Name(other, 64, JAX): [123.4, 120.0, 240.0],
    }
    head, _, row = plan_speed.comparison(rates).splitlines()
    assert head.count("|") == row.count("|")
    assert row == f"| {first} | 64 | 20.0 | 10.0 to 30.0 | 10.0 | 5.00 to 20.0 | 2.00 | 1.00 to 3.00 |"
    head, _, row = plan_speed.others(rates).splitlines()
    assert head.count("|") == row.count("|")
    assert row == f"| {other} | 64 | 123 | 120 to 240 | 12.0 | 4.00 to 12.3 |"


def test_programs_whose_rounds_lie_apart_are_named():
    steady, shaken = Name("calm", 1, JAX), Name("shaken", 1, TORCH)
    line = plan_speed.disturbed({steady: [10.0, 12.0], shaken: [10.0, 14.0]})
    assert line.startswith("DISTURBED")
    assert line.endswith(": shaken, 1, PyTorch.")
    assert "DISTURBED" not in plan_speed.disturbed({steady: [10.0, 12.0]})


def test_results_that_differ_are_refused():
    assert "1.0e-06" in plan_speed.check("a plan", 1e-6, 1e-3)
    for difference in (1e-3, float("nan")):
        with pytest.raises(RuntimeError, match="a plan differs by .*0.001"):
            plan_speed.check("a plan", difference, 1e-3)


def torch_side(config):
    """(our parameters, the same network in PyTorch), skipped where it is not installed."""
    pytest.importorskip("torch")
    params = plan_speed.init_params(config)
    return params, plan_speed.import_torch_side().Side(config, params, threads=1)


def test_networks_agree_at_two_resolutions():
    config = dataclasses.replace(TINY, mults=(1, 2))
    params, theirs = torch_side(config)
    assert plan_speed.forward_difference(config, params, theirs) < plan_speed.FORWARD_LIMIT


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_plans_from_one_start_agree(sampler):
    config = dataclasses.replace(TINY, sampler=sampler, num_steps=TINY.num_levels if sampler == "ddpm" else 6)
    params, theirs = torch_side(config)
    ends = plan_speed.known_ends(3)
    ours = plan_speed.jax_program(config, params, ends, jax.jit)
    program = plan_speed.Program(theirs.sampler(config, ends, theirs.net))
    assert plan_speed.plan_difference(config, ours, program, 3) < plan_speed.PLAN_LIMIT
    drawn = program.draw(0)
    np.testing.assert_array_equal(drawn[:, [0, -1], 2:], ends)
    assert np.abs(drawn[:, 1:-1] - program.draw(1)[:, 1:-1]).max() > 1e-3
