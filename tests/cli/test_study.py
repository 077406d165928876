"""From a config and a study's points to members, before anything runs."""

import json
from typing import Any

from ml_collections import ConfigDict
import numpy as np
import pytest

from jaxdiff import sweep
from jaxdiff.cli import config as configs
from jaxdiff.cli import config_files, overrides, study
from jaxdiff.cli.settings import algorithm_settings, anneal_over_run, base_config, make_settings, with_algorithm
from jaxdiff.cli.study import Resolver, make_members, product_of, resolve


def locked(algorithm: str = "diffusion_ql", **changes: Any) -> ConfigDict:
    config = base_config(algorithm)
    config.update(changes)
    return config.lock()


def test_product_joins_every_point_of_one_study_with_every_point_of_the_others():
    points = product_of({"one": [{"a": 1}, {"a": 2}], "two": ({"b": b, "c": 0} for b in (3, 4, 5))})
    assert len(points) == 6
    assert points[0] == {"a": 1, "b": 3, "c": 0}
    assert points[-1] == {"a": 2, "b": 5, "c": 0}
    assert len({json.dumps(point) for point in points}) == 6


def test_no_study_is_the_one_empty_point():
    assert product_of({}) == [{}]


def test_one_study_is_itself():
    points = [{"a": 1}, {"a": 1, "b": 2}]
    assert product_of({"only": points}) == points


def test_a_leading_config_is_dropped_and_numpy_scalars_are_plain():
    (point,) = product_of({"lr": [{"config.hparams.lr": np.float32(0.5), "seed": np.int64(3)}]})
    assert point == {"hparams.lr": 0.5, "seed": 3}
    assert [type(value) for value in point.values()] == [float, int]


@pytest.mark.parametrize(
    ("studies", "match"),
    [
        ({"x": [{"seed": 0, "a": 1}], "y": [{"b": 2, "seed": 1}]}, "sweep 'x' and sweep 'y' both set 'seed'; give"),
        ({"x": [{"seed": 0}], "y": [{"b": 2}, {"config.seed": 1}]}, "sweep 'x' and sweep 'y' both set 'seed'"),
        ({"x": []}, "sweep 'x' has no points"),
        ({"x": [{"a": 1}], "y": []}, "sweep 'y' has no points"),
        ({"x": [1e-3]}, "sweep 'x' has the point 0.001; a point is a flat dict"),
        ({"x": [{3: 1}]}, "sweep 'x' has the point {3: 1}"),
        ({"x": [{"seed": 1, "config.seed": 2}]}, "sets a key twice, with config. and without"),
    ],
)
def test_studies_that_make_no_points_are_refused_by_their_names(studies, match):
    with pytest.raises(ValueError, match=match):
        product_of(studies)


def test_a_point_is_applied_and_the_config_left_alone():
    config = locked()
    resolved = resolve(config, {"hparams.q_weight": 3, "model.policy.hidden": [8, 8], "seed": 4})
    assert resolved["hparams"]["q_weight"] == 3.0
    assert type(resolved["hparams"]["q_weight"]) is float
    assert resolved["model"]["policy"]["hidden"] == (8, 8)
    assert resolved["seed"] == 4
    assert config.hparams.q_weight == 1.0
    assert config.seed == 0


def test_another_algorithm_brings_its_settings_and_shared_ones_keep_their_values():
    config = base_config("diffusion_ql")
    config.hparams.lr, config.hparams.max_grad_norm = 7e-4, 5.0
    config.model.policy.num_steps = config.model.policy.num_levels = 9
    resolved = resolve(config.lock(), {"algorithm": "diffusion_bc", "seed": 2})
    own = algorithm_settings("diffusion_bc")
    assert resolved["algorithm"] == "diffusion_bc"
    assert set(resolved["hparams"]) == set(own["hparams"])
    assert set(resolved["model"]) == set(own["model"])
    assert (resolved["hparams"]["lr"], resolved["hparams"]["max_grad_norm"]) == (7e-4, 5.0)
    assert resolved["model"]["policy"]["num_steps"] == 9
    assert resolved["num_updates"] == config.num_updates
    make_settings(resolved)


def test_switching_there_and_back_keeps_what_both_have():
    config = base_config("diffusion_ql")
    config.hparams.lr, config.hparams.q_weight = 7e-4, 9.0
    back = with_algorithm(with_algorithm(config.to_dict(), "diffusion_bc"), "diffusion_ql")
    assert back["hparams"]["lr"] == 7e-4
    assert back["hparams"]["q_weight"] == 1.0  # diffusion_bc has none: the default again


def test_a_key_of_the_other_algorithm_is_refused_in_a_point():
    with pytest.raises(KeyError, match=r"unknown config key 'hparams.q_weight'"):
        resolve(locked(), {"algorithm": "diffusion_bc", "hparams.q_weight": 1.0})


@pytest.mark.parametrize(
    ("point", "error", "match"),
    [
        ({"hparams.q_wieght": 1.0}, KeyError, "unknown config key 'hparams.q_wieght'; did you mean 'hparams.q_weight'"),
        ({"q_weight": 1.0}, KeyError, "unknown config key 'q_weight'; did you mean 'hparams.q_weight'"),
        ({"algorithm": "diffusion_qll"}, KeyError, "unknown algorithm 'diffusion_qll'; did you mean 'diffusion_ql'"),
        ({"hparams.lr": "fast"}, ValueError, "config key 'hparams.lr' wants float, got 'fast'"),
        ({"model.num_candidates": 2.5}, ValueError, "config key 'model.num_candidates' wants int, got 2.5"),
        ({"hparams": 1.0}, ValueError, "config key 'hparams' is a group"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"seed": 2**31}, ValueError, "seed=2147483648"),
        ({"batch_size": 0}, ValueError, "batch_size=0; it must be at least 1"),
        ({"eval_interval": 0}, ValueError, "eval_interval=0"),
        ({"chunk": -5}, ValueError, "chunk=-5"),
    ],
)
def test_a_wrong_point_is_refused_before_anything_runs_even_as_the_last_one(point, error, match):
    with pytest.raises(error, match=match):
        make_members(locked(), [{"seed": 1}, point])


def test_a_wrong_point_is_named_with_its_study():
    points = [{"seed": 1}, {"seed": 2, "hparams.q_wieght": 1.0}]
    with pytest.raises(KeyError) as caught:
        make_members(locked(), points, "lr,seed")
    assert caught.value.args[0].startswith("unknown config key 'hparams.q_wieght'; did you mean 'hparams.q_weight'?")
    assert caught.value.args[0].endswith("It is in point 2 of sweep lr,seed, {'seed': 2, 'hparams.q_wieght': 1.0}.")


def test_a_lone_run_has_no_point_to_name():
    with pytest.raises(ValueError, match="batch_size=0; it must be at least 1.$"):
        make_members(locked(batch_size=0), [{}])


def referring() -> ConfigDict:
    config = base_config("diffusion_ql")
    config.hparams.lr = 1e-3
    config.hparams.critic_lr = config.hparams.get_ref("lr")
    config.eval_interval = config.get_ref("num_updates") // 10
    config.note = None
    return config.lock()


def test_points_resolved_one_after_another_equal_each_resolved_alone():
    points = [
        {"hparams.lr": 5e-3},
        {"seed": 4},
        {"hparams.lr": 7e-3},
        {"num_updates": 50, "seed": 1},
        {"hparams.critic_lr": 2.0, "hparams.lr": 3.0},
        {"num_updates": 90, "seed": 2},
        {"hparams.critic_lr": 4, "hparams.lr": 5},
        {"hparams.lr": 5, "hparams.critic_lr": 4},
        {"algorithm": "diffusion_bc", "seed": 1},
        {"algorithm": "diffusion_bc", "seed": 2},
        {"note": "words"},
        {"model.policy.hidden": [8, 8], "note": 3},
        {"seed": 5},
    ]
    resolver = Resolver(referring())
    assert [resolver.resolve(point) for point in points] == [resolve(referring(), point) for point in points]
    assert resolver.resolve(points[2])["hparams"]["critic_lr"] == 7e-3
    assert resolver.resolve(points[5])["eval_interval"] == 9
    assert resolver.resolve({})["hparams"]["lr"] == 1e-3


def test_a_refused_value_leaves_nothing_behind():
    resolver = Resolver(locked())
    with pytest.raises(ValueError, match="'hparams.lr' wants float"):
        resolver.resolve({"hparams.q_weight": 9.0, "hparams.lr": "fast"})
    assert resolver.resolve({"hparams.q_weight": 2.0, "hparams.lr": 0.5})["hparams"]["q_weight"] == 2.0
    assert resolver.resolve({"hparams.lr": 0.5})["hparams"]["q_weight"] == 1.0


def test_hundreds_of_members_are_checked_with_a_few_copies_of_the_config(monkeypatch):
    copies = []
    original = study.Overrider
    monkeypatch.setattr(study, "Overrider", lambda config, keys: copies.append(1) or original(config, keys))
    points = [
        {"hparams.q_weight": q / 64, "seed": s, "batch_size": b} for q in range(64) for s in (1, 2) for b in (1, 2)
    ]
    members = make_members(locked(), points)
    assert len({member.id for member in members}) == 256
    assert len(copies) == 2


def test_a_label_leaves_out_what_does_not_change_a_result():
    (member,) = make_members(locked(), [{"eval_episodes": 4, "hparams.q_weight": 2.0, "seed": 1, "chunk": 10}])
    assert member.label == "diffusion_ql q_weight=2"


def test_the_study_that_shows_scale_is_256_members_of_two_programs():
    large = config_files.sweeps(config_files.shipped()["pointmaze"])["large"]
    members = make_members(configs.load("pointmaze"), large())
    groups = sweep.group_members(members)
    assert [len(group) for group in groups] == [128, 128]
    assert len({member.label for member in members}) == 32
    assert sorted({member.seed for member in members}) == list(range(8))


def test_members_carry_the_points_and_the_whole_config():
    points = [{"hparams.q_weight": q, "seed": s} for q in (0.5, 2.0) for s in (0, 1)]
    members = make_members(locked(), points)
    assert [m.overrides for m in members] == points
    assert [m.seed for m in members] == [0, 1, 0, 1]
    assert len({m.id for m in members}) == 4
    assert len({m.label for m in members}) == 2
    assert [m.config["hparams"]["q_weight"] for m in members] == [0.5, 0.5, 2.0, 2.0]


def test_points_that_would_be_one_member_are_refused_unless_they_are_the_same():
    with pytest.raises(ValueError, match="two points differ only in 'eval_episodes' .4 and 8.*sweep another key"):
        make_members(locked(), [{"seed": 1, "eval_episodes": 4}, {"seed": 2}, {"seed": 1, "eval_episodes": 8}])
    assert len(make_members(locked(), [{"seed": 1}, {"seed": 1}])) == 2
    assert len(make_members(locked(), [{"seed": s, "eval_episodes": 4 + s} for s in (0, 1)])) == 2


def test_a_member_of_a_sweep_is_the_lone_run_with_its_settings():
    (of_a_sweep,) = make_members(locked(), [{"hparams.q_weight": 2.0, "seed": 3}])
    config = base_config("diffusion_ql")
    config.hparams.q_weight, config.seed = 2.0, 3
    (alone,) = make_members(config.lock(), [{}])
    assert of_a_sweep.id == alone.id


@pytest.mark.parametrize(
    "point", [{"num_updates": 700}, {"num_updates": 700, "algorithm": "diffusion_bc"}, {"algorithm": "diffusion_bc"}]
)
def test_decay_over_the_whole_run_stays_that_also_when_a_run_folder_is_repeated(point):
    config = base_config("diffusion_ql")
    anneal_over_run(config)
    config.num_updates = 300
    config.lock()
    again = overrides.from_json(json.loads(json.dumps(config.to_dict())))
    first, second = (make_members(c, [point])[0] for c in (config, again))
    assert first.config["hparams"]["lr_decay_steps"] == first.config["num_updates"] == point.get("num_updates", 300)
    assert first.id == second.id


def test_a_decay_that_the_point_sets_is_kept():
    config = base_config("diffusion_ql")
    anneal_over_run(config)
    resolved = resolve(config.lock(), {"num_updates": 700, "hparams.lr_decay_steps": 50.0})
    assert resolved["hparams"]["lr_decay_steps"] == 50.0


def test_settings_become_the_algorithms_dataclasses():
    model, hparams = make_settings({**locked().to_dict(), "algorithm": "diffusion_ql"})
    assert hash(model) == hash(model)
    assert model.policy.num_steps == 5
    assert hparams.q_weight == 1.0


def test_a_list_from_json_is_a_tuple_again():
    config = json.loads(json.dumps(locked().to_dict()))
    model, _ = make_settings(config)
    assert model.critic_hidden == (256, 256, 256)
    assert model.policy.hidden == (256, 256, 256)


@pytest.mark.parametrize("group", ["model", "hparams"])
def test_a_setting_the_algorithm_does_not_have_is_named(group):
    config = locked().to_dict()
    config[group]["no_such"] = 1.0
    with pytest.raises(KeyError, match=f"unknown setting '{group}.no_such'"):
        make_settings(config)
