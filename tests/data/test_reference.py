"""Normalised scores against published numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.data import normalised_score, reference_scores


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hopper", (-20.272305, 3234.3)),
        ("hopper-medium-v2", (-20.272305, 3234.3)),
        ("hopper_medium_replay", (-20.272305, 3234.3)),
        ("Hopper-v5", (-20.272305, 3234.3)),
        ("gymnasium-Hopper-v5", (-20.272305, 3234.3)),
        ("HalfCheetah-v5", (-280.178953, 12135.0)),
        ("walker2d-full-replay-v2", (1.629008, 4592.3)),
        ("ant-expert-v2", (-325.6, 3879.7)),
        ("antmaze-large-diverse-v2", (0.0, 1.0)),
        ("kitchen-partial-v0", (0.0, 4.0)),
        ("pen-cloned-v1", (96.262799, 3076.8331017826877)),
        ("maze2d-umaze-v1", (23.85, 161.86)),
        ("maze2d-umaze", (23.85, 161.86)),
        ("maze2d-umaze-v0", (0.94, 62.6)),
        ("maze2d-large-dense-v1", (30.569041, 303.4857382709002)),
        ("maze2d-open", (0.01, 20.66)),
        ("minigrid-fourrooms-v0", (0.01442, 2.89685)),
    ],
)
def test_names_lead_to_the_published_pair(name, expected):
    assert reference_scores(name) == expected


@pytest.mark.parametrize(
    "name", ["brax-hopper", "hopper-backwards", "hopperbot", "maze2d-umaze-v7", "pointmaze-umaze", "", "v2"]
)
def test_other_tasks_have_no_pair(name):
    assert reference_scores(name) is None


def test_random_scores_0_and_the_expert_100():
    pair = reference_scores("walker2d")
    np.testing.assert_allclose(normalised_score(np.array(pair), pair), [0.0, 100.0])


def test_a_score_is_a_share_of_the_way_from_random_to_expert():
    low, high = reference_scores("hopper-medium-v2")
    share = np.array([-0.5, 0.25, 1.2])
    np.testing.assert_allclose(normalised_score(low + share * (high - low), (low, high)), 100 * share)


def test_arrays_keep_their_shape():
    scores = normalised_score(jnp.array([[1.0, 2.0], [3.0, 4.0]]), (0.0, 4.0))
    np.testing.assert_allclose(scores, [[25.0, 50.0], [75.0, 100.0]])


def test_a_reversed_pair_is_refused():
    with pytest.raises(ValueError, match=r"\(random, expert\) with expert > random"):
        normalised_score(1.0, (3.0, 2.0))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("simple_spread", (159.8, 516.8)),
        ("simple_tag-medium-replay", (-4.1, 185.6)),
        ("simple_world-random-seed3", (-6.8, 79.5)),
        ("simple_tag-mine", None),
        ("mpe-tag", None),
        ("simple_adversary-expert", None),
        ("HalfCheetah-v2-expert", None),
    ],
)
def test_omar_s_constants_are_for_names_of_its_own_folders(name, expected):
    assert reference_scores(name) == expected
