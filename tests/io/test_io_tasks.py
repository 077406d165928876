"""What tasks and settings of a study are called, and which keys follow from the task."""

from jaxdiff import sweep
from jaxdiff.io import tasks

TWO = [
    {"env": "hopper", "dataset": "h", "hparams.bc_weight": 10.0},
    {"env": "walker", "dataset": "w", "hparams.bc_weight": 0.3},
]
BASE = {"algorithm": "fql", "env": "hopper", "dataset": "d", "seed": 0}


def label_of(point):
    return sweep.make_member({**BASE, **point}, point).label


def test_a_setting_is_one_on_all_tasks_though_a_weight_goes_with_the_task():
    points = [{**task, "hparams.lr": lr, "seed": seed} for task in TWO for lr in (1e-3, 1e-4) for seed in (0, 1)]
    naming = tasks.naming({**BASE, "points": points})
    assert naming.is_several and naming.planned == ("hopper dataset=h", "walker dataset=w")
    named = {naming.setting(label_of(point), "fql", point) for point in points}
    assert named == {"fql lr=0.001", "fql lr=0.0001"}
    assert naming.following("fql", points[0]) == ["bc_weight=10"]


def test_a_key_with_two_values_on_a_task_is_a_setting():
    points = [{**TWO[0]}, {**TWO[1]}, {**TWO[1], "hparams.bc_weight": 10.0}]
    naming = tasks.naming({**BASE, "points": points})
    assert [naming.setting(label_of(p), "fql", p) for p in points] == [
        "fql bc_weight=10", "fql bc_weight=0.3", "fql bc_weight=10"
    ]  # fmt: skip


def test_what_follows_from_the_task_is_asked_of_each_algorithm():
    points = [{**task, "algorithm": "fql"} for task in TWO]
    points += [{"env": env, "dataset": env[0], "algorithm": "iql", "hparams.lr": 1.0} for env in ("hopper", "walker")]
    naming = tasks.naming({**BASE, "points": points})
    assert naming.bound == {"fql": frozenset({"hparams.bc_weight"}), "iql": frozenset()}
    assert naming.setting("iql env=hopper dataset=h lr=1", "iql", points[2]) == "iql lr=1"


def test_points_that_set_no_env_are_one_task():
    assert not tasks.naming({**BASE, "points": [{"dataset": "x"}, {"dataset": "y"}]}).is_several
    assert not tasks.naming({**BASE, "points": [{"vec.v": 1.0}, {"vec.v": 2.0}]}).is_several
    assert not tasks.naming({**BASE, "points": [{"env": "hopper", "seed": s} for s in (0, 1)]}).is_several
    assert tasks.naming({**BASE, "points": [{"maze": "#O#"}, {"maze": "#OG#"}]}).is_several


def test_a_pack_from_before_the_study_had_tasks_is_of_the_task_that_it_was_trained_on():
    """Its members set no env, and its config has one."""
    naming = tasks.naming({**BASE, "points": [{"env": "hopper", "dataset": "d"}, {"env": "walker", "dataset": "w"}]})
    assert naming.task({**BASE, "env": "walker", "dataset": "w"}, {"seed": 1}) == naming.planned[1]
    assert naming.setting("fql", "fql", {"seed": 1}) == "fql"


def test_a_dataset_called_like_its_environment_is_not_said_twice():
    points = [{"env": name, "dataset": name} for name in ("umaze", "medium")]
    assert tasks.naming({**BASE, "points": points}).planned == ("umaze", "medium")
