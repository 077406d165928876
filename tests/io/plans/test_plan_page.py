import dataclasses
import re

import numpy as np
from page_reader import read_page
import pytest

from jaxdiff.io import plans
from jaxdiff.io.report.plans import stage_indices


def read(planned):
    return read_page(plans.page(planned))


def labels(reader):
    return [attrs["aria-label"] for tag, attrs in reader.elements if tag == "svg" and "aria-label" in attrs]


@pytest.mark.parametrize(("calls", "count", "stages"), [(20, 5, [0, 5, 10, 15, 20]), (2, 8, [0, 1, 2]), (0, 8, [0])])
def test_stages_are_spread_evenly_from_noise_to_plan(calls, count, stages):
    assert stage_indices(calls, count) == stages


def test_every_episode_has_its_pictures_and_each_says_what_it_is(planned):
    reader = read(planned())
    for e in (1, 2):
        for words in (
            f"The path of episode {e} over its plan",
            f"All 5 plans of episode {e}, the best on top",
            f"Values of the 5 plans of episode {e}, by rank",
            f"Denoising of episode {e}, step by step",
        ):
            assert labels(reader).count(words) == 1
    assert all("aria-label" in a or a.get("aria-hidden") for t, a in reader.elements if t == "svg")
    assert reader.text.count("Episode 1: return 12.5, normalised score 34.5") == 1
    assert "100, 90, 80, 70, 60" in reader.text
    assert "Left out" not in reader.text and "As drawn." in reader.text


def test_regions_are_boxes_with_their_names_where_these_can_be_read(planned):
    reader = read(planned(episodes=1))
    boxes = [attrs["class"] for tag, attrs in reader.elements if tag == "g" and "region" in attrs.get("class", "")]
    pictures = 8 + 3  # stages; path over plan, candidates, player
    assert boxes.count("region") == boxes.count("region bad") == pictures
    named = re.findall(r"<text[^>]*>west gate</text>", plans.page(planned(episodes=1)))
    assert len(named) == 3


def test_points_lie_where_the_maze_says(planned):
    """x counts rows downwards, y columns rightwards, 40 pixels a cell; the corner of the walls is at (-0.7, -0.7)."""
    page = planned(episodes=1, horizon=2, goal=(3.0, 6.0))
    html = plans.page(page)
    first, last = (f"{40 * (place + 0.7):.1f}" for place in (1.0, 3.0))
    beads = f'd="M{first} {first}h0M{last} {last}h0"'
    assert html.count(beads) == 3  # the plan under the path, over the others, and as the last stage
    (frames,) = re.findall(r'data-frames="([^"]*)"', html)
    assert frames.split(";")[-1] == f"{float(first):g},{float(first):g} {float(last):g},{float(last):g}"


def test_without_a_plane_the_numbers_of_the_observation_are_drawn(planned):
    reader = read(planned(facts={}, goal=None, dim=6, episodes=1))
    for i in range(6):
        assert f"Number {i} of the observation, planned and executed, against the step" in labels(reader)
    assert not [attrs for _, attrs in reader.elements if "data-frames" in attrs]
    assert "Values of the 5 plans of episode 1, by rank" in labels(reader)


def test_a_single_plan_or_plans_that_nothing_ranks_are_said_to_be_so(planned):
    assert "A single plan was made" in read(planned(candidates=1)).text
    page = planned()
    unranked = [
        dataclasses.replace(e, plan=dataclasses.replace(e.plan, values=np.zeros(5)), score=None) for e in page.episodes
    ]
    reader = read(dataclasses.replace(page, episodes=unranked))
    assert "Nothing ranks the plans." in reader.text
    assert not [label for label in labels(reader) if label.startswith("Values")]


def test_a_large_page_stays_small(planned):
    page = plans.page(planned(episodes=4, candidates=64, horizon=384, calls=256))
    assert len(page) < 1_500_000
    assert "64 plans" in page and "a bead for 128 of its 384 steps" in page


def test_what_the_user_named_is_escaped_and_nothing_is_loaded(planned):
    hostile = "<script>alert('x')</script>&\"'"
    facts = {**planned().scene, "regions": [{"name": hostile, "low": [1, 1], "high": [2, 2]}]}
    content = plans.page(planned(name=hostile, facts=facts))
    assert content.count("<script>") == 1 and "<script>alert" not in content
    assert "http://" not in content and "https://" not in content and "url(" not in content
    read(planned(name=hostile, facts=facts))


@pytest.mark.parametrize("what", ["plan", "path", "short"])
def test_what_cannot_be_drawn_is_said(planned, what):
    page = planned(episodes=2)
    plan = page.episodes[1].plan
    if what == "plan":
        plan = dataclasses.replace(plan, candidates=np.full_like(plan.candidates, np.nan))
    elif what == "path":
        plan = dataclasses.replace(plan, executed=np.full_like(plan.executed, np.inf))
    else:
        plan = dataclasses.replace(plan, executed=plan.executed[:1])
    broken = [page.episodes[0], dataclasses.replace(page.episodes[1], plan=plan)]
    with pytest.raises(ValueError, match="the plan of episode 2 cannot be drawn"):
        plans.page(dataclasses.replace(page, episodes=broken))


def test_the_page_is_written_whole(planned, tmp_path):
    plans.write(planned(), tmp_path / "new" / "plans.html")
    assert (tmp_path / "new" / "plans.html").read_text() == plans.page(planned())
