"""Studies out of smaller ones: which points, drawn how, and what a mistake is told."""

import itertools

import numpy as np
import pytest

from jaxdiff import points

LR = {"hparams.lr": (1e-4, 1e-2, "log")}
SPACE = {**LR, "hparams.discount_factor": (0.9, 1.0, "linear"), "model.hidden": [(64, 64), (128, 128), (8,)]}


def test_values_and_seeds_are_points_of_one_key():
    assert points.values("batch_size", (64, 128)) == [{"batch_size": 64}, {"batch_size": 128}]
    assert points.values("model.hidden", [(8, 8)]) == [{"model.hidden": (8, 8)}]
    assert points.seeds(3, first=5) == [{"seed": 5}, {"seed": 6}, {"seed": 7}]


@pytest.mark.parametrize(("grid", "expected"), [(points.linspace, np.linspace), (points.geomspace, np.geomspace)])
def test_grids_are_those_of_numpy(grid, expected):
    found = [point["k"] for point in grid("k", 3e-4, 0.7, 9)]
    np.testing.assert_allclose(found, expected(3e-4, 0.7, 9), rtol=1e-5)
    assert (found[0], found[-1]) == (3e-4, 0.7)
    assert all(type(value) is float for value in found)


def test_numbers_are_as_a_label_shows_them():
    found = [point["k"] for point in points.linspace("k", 0, 1, 11)]
    assert found == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert all(float(f"{point['hparams.lr']:g}") == point["hparams.lr"] for point in points.sobol(LR, 32))


def test_product_is_every_combination_the_last_study_fastest():
    found = points.product([{"a": 1}, {"a": 2, "x": 0}], points.seeds(2), [{"b": 9}])
    assert found == [
        {"a": 1, "seed": 0, "b": 9}, {"a": 1, "seed": 1, "b": 9},
        {"a": 2, "x": 0, "seed": 0, "b": 9}, {"a": 2, "x": 0, "seed": 1, "b": 9},
    ]  # fmt: skip
    assert points.product() == [{}]


def test_zipped_pairs_and_chain_appends():
    lr, width = points.values("lr", [1, 2]), points.values("width", [3, 4])
    assert points.zipped(lr, iter(width)) == [{"lr": 1, "width": 3}, {"lr": 2, "width": 4}]
    assert points.chain(lr, iter(width)) == [{"lr": 1}, {"lr": 2}, {"width": 3}, {"width": 4}]


def test_what_is_given_stays_as_it_is():
    given = [{"a": 1}]
    for made in (points.product(given), points.zipped(given), points.chain(given), points.subsample(given, 1)):
        made[0]["a"] = 2
    assert given == [{"a": 1}]


@pytest.mark.parametrize("draw", [points.sobol, points.random_search])
def test_draws_lie_in_their_space_and_fill_it(draw):
    found = draw(SPACE, 128, seed=3)
    assert all(list(point) == list(SPACE) for point in found)
    lr = np.log([point["hparams.lr"] for point in found])
    u = (lr - np.log(1e-4)) / np.log(100)
    assert u.min() >= 0 and u.max() <= 1
    assert abs(u.mean() - 0.5) < 0.1  # four standard errors of independent draws
    factor = [point["hparams.discount_factor"] for point in found]
    assert 0.9 <= min(factor) < 0.91 and 0.99 < max(factor) <= 1.0
    assert {point["model.hidden"] for point in found} == set(SPACE["model.hidden"])


def test_sobol_points_are_balanced():
    found = points.sobol({"a": (0.0, 1.0, "linear"), "b": [0, 1, 2, 3]}, 16, seed=1)
    cells = [(int(4 * point["a"]), point["b"]) for point in found]
    assert sorted(cells) == sorted(itertools.product(range(4), range(4)))


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("draw", [points.sobol, points.random_search, points.subsample])
def test_fewer_draws_are_the_beginning_of_more_and_seeds_differ(draw, seed):
    space = points.seeds(40) if draw is points.subsample else SPACE
    many = draw(space, 33, seed)
    for count in (1, 5, 16):
        assert draw(space, count, seed) == many[:count]
    assert draw(space, 33, seed) == many
    assert draw(space, 33, seed + 1) != many


def test_subsample_takes_each_point_once():
    found = points.subsample(points.seeds(20), 20, seed=4)
    assert found != points.seeds(20)
    assert sorted(point["seed"] for point in found) == list(range(20))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: points.values("a", []), "values of 'a' are empty; give at least one"),
        (lambda: points.values("algorithm", "bc"), r"values of 'algorithm' are the text 'bc'; give .*\['bc'\]"),
        (lambda: points.seeds(0), "count=0; it must be at least 1"),
        (lambda: points.seeds(1, -2), "first=-2; a seed is at least 0"),
        (lambda: points.linspace("a", 0, 1, 1), "count=1 for 'a'; a grid has at least its two ends"),
        (lambda: points.geomspace("a", 0, 1, 3), "bounds of 'a' are 0 and 1; a log scale wants them above 0"),
        (lambda: points.geomspace("a", 2, 1, 3), "bounds of 'a' are 2 and 1; they must be finite, and the first"),
        (lambda: points.linspace("a", 0, float("nan"), 3), "bounds of 'a' are 0 and nan; they must be finite"),
        (lambda: points.product([{"a": 1}], [{"b": 1, "a": 2}]), "study 1 and study 2 both set 'a'; give"),
        (lambda: points.product([{"a": 1}], []), "study 2 has no points"),
        (lambda: points.zipped([{"a": 1}], [{"b": 1}] * 2), "studies of 1 and 2 points cannot be zipped; give as many"),
        (lambda: points.zipped([{"a": 1}], [{"a": 1}]), "study 1 and study 2 both set 'a'"),
        (lambda: points.subsample(points.seeds(3), 4), "count=4, but the study has 3 points; draw at most"),
        (lambda: points.sobol({}, 4), "the space is empty; give at least one key"),
        (lambda: points.sobol(LR, 0), "count=0"),
        (lambda: points.sobol({"a": []}, 4), r"the space of 'a' is \[\]; give bounds as .* or choices as a list"),
        (lambda: points.random_search({"a": (1e-4, 1e-3, "lgo")}, 4), "the space of 'a' is .*'lgo'.*; give bounds as"),
        (lambda: points.random_search({"a": (1, 2)}, 4), r"the space of 'a' is \(1, 2\); give bounds as"),
    ],
)
def test_a_mistake_is_named_with_what_to_do(call, match):
    with pytest.raises(ValueError, match=match):
        call()
