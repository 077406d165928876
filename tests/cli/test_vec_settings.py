"""Settings of the task `vec`: networks and traces out of files, what eval may change, what is refused."""

import pytest

from jaxdiff.cli import pretrained
from jaxdiff.cli.overrides import from_json
from jaxdiff.cli.restore import apply_settings, check_same_sizes, parse_settings
from jaxdiff.cli.settings import VEC_OPTIONS, base_config
from jaxdiff.cli.task import make_env
from jaxdiff.cli.vec_options import vec_options
from jaxdiff.envs.vec import vec


def config_of(**changes):
    return {**base_config("bc").to_dict(), "env": "vec", "vec": {**VEC_OPTIONS, **changes}}


def test_the_defaults_are_those_of_the_factory():
    usual, asked = vec(), make_env(config_of())
    assert asked.spec == usual.spec
    assert asked.facts == usual.facts
    older = {key: value for key, value in config_of().items() if key != "vec"}
    assert make_env(older).spec == usual.spec


def test_options_and_files_reach_the_factory(tmp_path):
    network = tmp_path / "own.toml"
    network.write_text('name = "own"\n[[layer]]\nname = "all"\ndata_mb = 0.5\nwork_gflop = 3.0\n')
    trace = tmp_path / "trace.csv"
    rows = (f"{slot},v{vehicle},{vehicle}\n" for slot in range(31) for vehicle in range(4))
    trace.write_text("time,id,x\n" + "".join(rows))
    config = config_of(num_clients=3, num_servers=1, profiles=f"alexnet+{network}", clients_per_type=(1, 2),
                       trace=str(trace))  # fmt: skip
    facts = make_env(config).facts
    assert (facts["networks"], facts["kinds"], facts["depths"]) == (["alexnet", "own"], [0, 1, 1], [11, 1, 1])
    assert vec_options(config)["trace"].shape == (31, 4)
    config["vec"]["coverage"] = 2.0
    with pytest.raises(ValueError, match=r"trace\.csv: line 5: vehicle 'v3' is at x=3"):
        make_env(config)
    config["vec"]["trace_origin"] = "fleet"
    assert make_env(config).spec.num_agents == 3


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"profiles": "alexnot"}, KeyError, "unknown network .*'alexnot'; did you mean 'alexnet'"),
        ({"profiles": "own.toml"}, FileNotFoundError, "own.toml"),
        ({"trace": "none.csv"}, FileNotFoundError, "none.csv"),
        ({"num_clients": 0}, ValueError, "num_clients=0 must be a whole number"),
    ],
)
def test_what_does_not_exist_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        make_env(config_of(**changes))


def test_eval_may_change_the_task():
    configs = [config_of()]
    overrides = parse_settings(configs, ["vec.v=50", "vec.trace=other.csv", "vec.clients_per_type=(1,2,2)"])
    assert overrides == {"vec.v": 50.0, "vec.trace": "other.csv", "vec.clients_per_type": (1, 2, 2)}
    assert apply_settings(configs[0], overrides)["vec"]["v"] == 50.0


def test_a_weight_that_lanes_bring_themselves_is_not_set_twice():
    config = config_of(v=50.0)
    assert vec_options(config)["v"] == 50.0
    config["hparams"] = {**config["hparams"], "lyapunov_weight": 10.0}
    with pytest.raises(ValueError, match=r"config\.vec\.v=50\.0 has no use with bc.*hparams\.lyapunov_weight"):
        make_env(config)


def test_a_run_that_starts_from_another_keeps_its_task(monkeypatch):
    there = config_of(num_clients=7, num_servers=5)
    monkeypatch.setattr(pretrained, "plans_of", lambda config: [{"config": there}])
    merged = pretrained.inherit(from_json(config_of()), {"vec.num_servers": 4})
    assert (merged.vec.num_clients, merged.vec.num_servers) == (7, 3)  # the second as the command line has it


def test_eval_cannot_change_who_is_there():
    usual, larger = make_env(config_of()), make_env(config_of(num_servers=4))
    check_same_sizes(usual.spec, make_env(config_of(reward_scale=0.1)).spec)
    with pytest.raises(ValueError, match="vec with 5 agents, 97 numbers seen and 88 done, and vec would have"):
        check_same_sizes(usual.spec, larger.spec)
