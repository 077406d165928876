"""Every trajectory of diffusers in tests/golden, from public functions; docs/diffusion/parity.md explains."""

from collections.abc import Callable
import json
from pathlib import Path

import exact
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import (
    Level,
    Table,
    clip,
    consistency_chain,
    cosine_betas,
    ddim,
    ddpm,
    denoiser,
    dpm_single,
    dpmpp,
    edm,
    flow,
    from_betas,
    grid_levels,
    heun,
    linear_betas,
    pf_ode,
    sample,
    sigma_levels,
    stack,
    time_at,
    trigflow_level,
    unipc,
    variance_denoiser,
)
from jaxdiff.diffusion.schedules import shifted_time

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = np.load(FOLDER / "diffusers.npz", allow_pickle=False)
META = json.loads(str(GOLDEN["_meta"]))["cases"]
OWN = np.load(FOLDER / "ddim.npz", allow_pickle=False)
MIXTURE = {"weights": GOLDEN["_pi"], "means": GOLDEN["_mu"], "variances": GOLDEN["_var"]}
SIGMA_DATA, SIGMA_MIN = 0.5, 0.002


def chain(betas: np.ndarray):
    """diffusers forms 1 - beta in float32, which makes its smallest sigma 8e-5 larger than that of the plain betas."""
    return from_betas(1.0 - np.float64(np.float32(1.0) - np.float32(betas)))


LINEAR = chain(linear_betas(1000))
COSINE = chain(cosine_betas(1000))
LATENT = chain(linear_betas(1000, 0.00085, 0.012))  # HeunDiscreteScheduler's default, of latent diffusion
ON_EDM = edm()  # sigma from 80 to 0.002
CLIPPED = float(time_at(COSINE, -5.1))  # lambda_min_clipped=-5.1: levels with log(alpha / sigma) above it only
QUARTER_TURN = np.minimum(np.linspace(1.57080, 0.0, 5), 0.5 * np.pi)  # diffusers' rounded pi / 2 lies 4e-6 past it


def exploding(levels: Level) -> Level:
    """The same ratios sigma / alpha with alpha = 1, in which diffusers' Euler and Heun live."""
    return sigma_levels(np.exp(-levels.half_logsnr))


def of_training(indices: list[int]) -> Level:
    """Levels of the 40 on which a consistency model is trained; the last is sigma_min."""
    trained = grid_levels(ON_EDM, 39, spacing="karras", final="sigma_min")
    return Level(*(leaf[indices] for leaf in trained))


def multistep(order: int, num_steps: int = 10, *, final: str = "zero", **options) -> Table:
    levels = grid_levels(LINEAR, num_steps, spacing="linspace_open", final=final)
    return dpmpp(levels, order=order, third="published", **options)


def multistep_on(spacing: str, order: int) -> Table:
    return dpmpp(grid_levels(LINEAR, 10, spacing=spacing), order=order, third="published")


def multistep_on_flow(order: int) -> Table:
    return dpmpp(grid_levels(flow(), 10, t_start=0.999, shift=3.0), order=order, third="published")


def multistep_on_edm(order: int, num_steps: int = 10, **options) -> Table:
    return dpmpp(grid_levels(ON_EDM, num_steps, spacing="karras"), order=order, third="published", **options)


def ancestral(spacing: str, num_steps: int = 10, schedule=LINEAR, **options) -> Table:
    return ddpm(grid_levels(schedule, num_steps, spacing=spacing), **options)


def single(order: int) -> Table:
    return dpm_single(grid_levels(LINEAR, 12, spacing="linspace_open"), order=order, second="midpoint")


def corrected(order: int) -> Table:
    return unipc(grid_levels(LINEAR, 10, spacing="linspace_open"), order=order)


def implicit(eta: float) -> Table:
    # set_alpha_to_one=False: the tenth step goes from the first level to itself, where nothing moves; it is left out.
    return ddim(grid_levels(LINEAR, 9, spacing="leading_open", final="sigma_min"), eta=eta)


def straight(num_steps: int, shift: float = 1.0) -> Level:
    # The end is shifted once when the scheduler is made, and with the other levels once more.
    end = shifted_time(flow(), 0.001, np.log(shift))
    return grid_levels(flow(), num_steps, end, final="zero", shift=shift)


BUILDS: dict[str, Callable[[], Table]] = {
    "ddpm/fixed_small/leading/K10": lambda: ancestral("leading"),
    "ddpm/fixed_small/trailing/K10": lambda: ancestral("trailing"),
    "ddpm/fixed_large/trailing/K10": lambda: ancestral("trailing", variance="large", noisy_end=True),
    "ddpm/fixed_small/linspace/K10": lambda: ancestral("linspace"),
    "ddpm/fixed_large/linspace/K10": lambda: ancestral("linspace", variance="large"),
    "ddpm/fixed_small/leading/K5": lambda: ancestral("leading", 5),
    "ddpm/fixed_small/leading/K10/cosine": lambda: ancestral("leading", schedule=COSINE),
    "ddpm/fixed_small/leading/K10/clip1": lambda: ancestral("leading"),
    "ddpm/fixed_small_log/leading/K10": lambda: ancestral("leading"),
    "ddpm/learned_range0.3/leading/K10": lambda: ancestral("leading", variance="learned"),
    "ddpm/fixed_small/leading/K10/v": lambda: ancestral("leading"),
    "ddim/eta0.0/leading/one0/K10": lambda: implicit(0.0),
    "ddim/eta1.0/leading/one0/K10": lambda: implicit(1.0),
    "dpmpp/o1/zero/lof1/K10": lambda: multistep(1),
    "dpmpp/o1/zero/lof0/K10": lambda: multistep(1, lower_order_final=False),
    "dpmpp/o1/sigma_min/lof0/K10": lambda: multistep(1, final="sigma_min", lower_order_final=False),
    "dpmpp/o1/zero/lof1/K20": lambda: multistep(1, 20),
    "dpmpp/o1/zero/lof1/K5": lambda: multistep(1, 5),
    "dpmsolver_eps/o1/sigma_min/lof1/K10": lambda: multistep(1, final="sigma_min", predict="eps"),
    "sde-dpmpp/o1/zero/K10": lambda: multistep(1, rate=1.0),
    "sde-dpmpp/o1/zero/K20": lambda: multistep(1, 20, rate=1.0),
    "dpmpp/o1/flow3/K10": lambda: multistep_on_flow(1),
    "dpmpp/o2/zero/lof1/K10": lambda: multistep(2),
    "dpmpp/o2/zero/lof0/K10": lambda: multistep(2, lower_order_final=False),
    "dpmpp/o2/sigma_min/lof1/K10": lambda: multistep(2, final="sigma_min"),
    "dpmpp/o2/zero/lof1/K5": lambda: multistep(2, 5),
    "dpmpp/o2/karras/K10": lambda: multistep_on("karras", 2),
    "dpmpp/o2/lu/K10": lambda: multistep_on("logsnr", 2),
    "dpmsolver_eps/o2/sigma_min/lof1/K10": lambda: multistep(2, final="sigma_min", predict="eps"),
    "dpmpp/o2/flow3/K10": lambda: multistep_on_flow(2),
    "dpmpp/o3/sigma_min/lof1/K10": lambda: multistep(3, final="sigma_min"),
    "dpmpp/o3/sigma_min/lof0/K10": lambda: multistep(3, final="sigma_min", lower_order_final=False),
    "dpmpp/o3/zero/lof1/K5": lambda: multistep(3, 5),
    "dpmpp/o3/karras/K10": lambda: multistep_on("karras", 3),
    "dpmsolver_eps/o3/sigma_min/lof1/K10": lambda: multistep(3, final="sigma_min", predict="eps"),
    "dpmpp/o3/flow3/K10": lambda: multistep_on_flow(3),
    "dpmpp/o2/heun/K10": lambda: multistep(2, second="taylor"),
    "dpmpp/o2/cosine/K10": lambda: dpmpp(grid_levels(COSINE, 10, spacing="linspace_open", t_start=CLIPPED)),
    "dpmpp/o2/v/K10": lambda: multistep(2),
    "dpmpp/o2/sample/K10": lambda: multistep(2),
    "sde-dpmpp/o2/heun/K10": lambda: multistep(2, rate=1.0, second="taylor"),
    "dpmpp_single/o1/K12": lambda: single(1),
    "dpmpp_single/o2/K12": lambda: single(2),
    "dpmpp_single/o3/K12": lambda: single(3),
    "unipc/o2/bh2/K10": lambda: corrected(2),
    "unipc/o3/bh2/K10": lambda: corrected(3),
    "heun/linspace/K10": lambda: heun(exploding(grid_levels(LATENT, 10, spacing="linspace"))),
    "heun/leading/K10": lambda: heun(exploding(grid_levels(LATENT, 10, spacing="leading"))),
    "heun/trailing/K10": lambda: heun(exploding(grid_levels(LATENT, 10, spacing="trailing"))),
    "euler/leading/K10": lambda: ddim(exploding(grid_levels(LINEAR, 10, spacing="leading"))),
    "euler/trailing/K10": lambda: ddim(exploding(grid_levels(LINEAR, 10, spacing="trailing"))),
    "euler_ancestral/linspace/K10": lambda: ddim(exploding(grid_levels(LINEAR, 10, spacing="linspace")), eta=1.0),
    "edm_euler/exponential/K10": lambda: ddim(grid_levels(ON_EDM, 10, spacing="exponential")),
    "edm_dpmpp/o1/karras/K10": lambda: multistep_on_edm(1),
    "edm_dpmpp/o2/karras/K10": lambda: multistep_on_edm(2),
    "edm_dpmpp/o2/karras/K20": lambda: multistep_on_edm(2, 20, lower_order_final=False),
    "edm_dpmpp/o3/karras/K10": lambda: multistep_on_edm(3),
    "edm_sde_dpmpp/o2/karras/K10": lambda: multistep_on_edm(2, rate=1.0),
    "cm/K1": lambda: consistency_chain(of_training([0, 39]), sigma_min=SIGMA_MIN),
    "cm/K2": lambda: consistency_chain(of_training([0, 20, 39]), sigma_min=SIGMA_MIN),
    "cm/ts22_0": lambda: consistency_chain(of_training([0, 22, 39]), sigma_min=SIGMA_MIN),
    "cm/K5": lambda: consistency_chain(of_training([0, 8, 16, 24, 32, 39]), sigma_min=SIGMA_MIN),
    "flow_euler/shift1/K10": lambda: ddim(straight(10)),
    "flow_euler/shift1/K5": lambda: ddim(straight(5)),
    "flow_euler/shift3/K10": lambda: ddim(straight(10, shift=3.0)),
    "flow_euler/shift1/stochastic/K10": lambda: consistency_chain(straight(10)),
    "flow_heun/shift1/K10": lambda: pf_ode(straight(10), flow(), order=2),
    "scm/K4": lambda: consistency_chain(trigflow_level(QUARTER_TURN, SIGMA_DATA)),
}


def edm_output(x, x0, a, s):
    n2 = (SIGMA_DATA * a) ** 2 + s**2
    return (x0 - a * SIGMA_DATA**2 / n2 * x) / (s * SIGMA_DATA / np.sqrt(n2))


def consistency_output(x, x0, a, s):
    b = s - SIGMA_MIN
    c_skip = SIGMA_DATA**2 / (b**2 + SIGMA_DATA**2)
    return (x0 - c_skip * x) / (b * SIGMA_DATA / np.sqrt(s**2 + SIGMA_DATA**2))


def trigflow_output(x, x0, a, s):
    angle = np.arctan2(s / SIGMA_DATA, a)
    return (np.cos(angle) * x - x0) / (np.sin(angle) * SIGMA_DATA)


# diffusers' name: ours, the network's output that makes x0 of x, and whether it is fed x of unit variance
KINDS = {
    "epsilon": ("eps", lambda x, x0, a, s: (x - a * x0) / s, False),
    "sample": ("x0", lambda x, x0, a, s: x0, False),
    "v_prediction": ("v", lambda x, x0, a, s: a * (x - a * x0) / s - s * x0, False),
    "flow_prediction": ("flow", lambda x, x0, a, s: (x - a * x0) / s - x0, False),
    "flow": ("flow", lambda x, x0, a, s: (x - a * x0) / s - x0, False),
    "edm_F": ("edm", edm_output, True),
    "cm_F": ("consistency", consistency_output, True),
    "trigflow": ("trigflow", trigflow_output, True),
}


def exact_denoiser(case: str):
    """The case's network, in float64 numpy and then rounded, and from it a denoiser by jaxdiff's conversion."""
    kind, output, scaled = KINDS[META[case]["kind"]]
    config = META[case]["config"]
    learned = config.get("variance_type") == "learned_range"

    def network(x, t, level):
        x, a, s = np.float64(x), np.float64(level.alpha), np.float64(level.sigma)
        if scaled:
            x = x * np.sqrt((a * SIGMA_DATA) ** 2 + s**2)
        out = output(x, exact.posterior_mean(np, x, a, s, **MIXTURE), a, s)
        return jnp.asarray(np.concatenate([out, np.full_like(out, 0.3)], axis=-1) if learned else out, jnp.float32)

    make = variance_denoiser if learned else denoiser

    def denoise(x, level):
        return make(network, kind, level)(x, level)

    if not config.get("clip_sample"):
        return denoise
    return clip(denoise, -config["clip_sample_range"], config["clip_sample_range"])


def draw_golden_noise(monkeypatch):
    """Row k of a run is given the k-th of the golden draws."""
    noise = jnp.asarray(GOLDEN["_noise"], jnp.float32)
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype=None: noise[: shape[0]])


def trajectory(denoise, table, x_T):
    """States [calls + 1, ...] before each call and at the end."""
    states = []

    def watch(x, level):
        states.append(x)
        return denoise(x, level)

    states.append(sample(watch, table, jnp.asarray(x_T, jnp.float32), jax.random.key(0), unroll=True))
    return np.stack(states)


def assert_equal_to_golden(got, want):
    np.testing.assert_allclose(got, want, rtol=0.0, atol=5e-6 * np.abs(want).max())


def test_every_case_of_the_file_is_compared():
    assert sorted(BUILDS) == sorted(META)


@pytest.mark.parametrize("case", BUILDS)
def test_states_equal_those_of_diffusers(case, monkeypatch):
    draw_golden_noise(monkeypatch)
    want = GOLDEN[f"{case}/x"]
    got = trajectory(exact_denoiser(case), BUILDS[case](), want[0])
    if case.startswith("ddim"):
        np.testing.assert_array_equal(want[-1], want[-2])  # the step that is left out
        want = want[:-1]
    assert_equal_to_golden(got, want)


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_ddim_to_clean_data_equals_that_of_diffusers(eta, monkeypatch):
    draw_golden_noise(monkeypatch)
    want = OWN[f"eta{eta}"]
    table = ddim(grid_levels(LINEAR, 10, spacing="leading"), eta=eta)
    assert_equal_to_golden(trajectory(exact_denoiser("ddim/eta0.0/leading/one0/K10"), table, want[0]), want)


def test_one_program_runs_the_samplers_of_many_cases(monkeypatch):
    draw_golden_noise(monkeypatch)
    x_T = GOLDEN["_xT"]
    cases = [
        case
        for case in BUILDS
        if len(GOLDEN[f"{case}/x"]) == 11
        and np.array_equal(GOLDEN[f"{case}/x"][0], x_T)
        and not case.startswith("ddim")  # nine calls
        and "clip1" not in case
        and "learned" not in case
    ]
    assert len(cases) > 30

    def denoise(x, level):
        return exact.posterior_mean(jnp, x, level.alpha, level.sigma, **MIXTURE)

    def run(table):
        return sample(denoise, table, jnp.asarray(x_T, jnp.float32), jax.random.key(0), unroll=False)

    got = jax.jit(jax.vmap(run))(stack([BUILDS[case]() for case in cases]))
    for case, x in zip(cases, got, strict=True):
        assert_equal_to_golden(x, GOLDEN[f"{case}/x"][-1])
