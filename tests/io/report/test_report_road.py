"""Pictures of vehicular edge computing: what recorded observations and scores say, and what the page shows of it."""

import json
import re

import numpy as np
import pytest

from jaxdiff.io.report import build_report
from jaxdiff.io.report.road import decisions, queues, read_episode, read_scene, road, spread

# Two clients with networks of 3 and 2 layers, the RSU and one service vehicle: actions c 2 + node, c = 0 .. 3.
FACTS = {
    "networks": ["deep", "unused", "flat"],
    "kinds": [2, 0],
    "depths": [2, 3],
    "clients": ["client 1 (flat)", "client 2 (deep)"],
    "nodes": ["RSU", "vehicle 1"],
    "num_actions": 8,
    "coverage": 200.0,
    "range": 150.0,
}
LOCAL, RSU, SERVER = np.array([[0, 1.5], [3, 0], [2, 9]]), np.array([[0, 0], [4, 7], [1, 2]]), np.array([0, 0.5, 6])
OWN, PLACE = np.array([[-200, 10], [-150, 40], [-100, 80]]), np.array([200, 150, 100])
# Best of all scores, then of those allowed: slot 2 forbids the vehicle to client 1, whose second best is 1 layer, RSU.
CHOSEN = np.array([[1, 6], [3, 0], [4, 5]])
WANTED_KEPT, WANTED_NODE = np.array([[0, 3], [1, 0], [2, 2]]), np.array([[1, -1], [0, 0], [-1, 1]])


def recorded():
    """obs [3, 2, 13], scores [3, 2, 8]."""
    mask = np.ones((3, 2, 8))
    mask[:, 0, 6:] = 0
    mask[1, 0, [1, 3, 5]] = 0
    queue = np.stack([LOCAL, RSU, np.stack([SERVER, SERVER], axis=1)], axis=-1)
    where = np.stack([OWN, np.stack([PLACE, PLACE], axis=1)], axis=-1)
    obs = np.concatenate([np.log1p(queue), where / 200, mask], axis=-1)
    scores = 2.0 * np.eye(8)[CHOSEN] - 1.0
    scores[1, 0, 2] = -0.5
    scores[2, 0, 7] = 5.0  # not allowed
    return obs.astype(np.float32), scores.astype(np.float32)


@pytest.fixture
def scene():
    return read_scene(FACTS)


def test_observations_are_turned_back_into_queues_and_metres(scene):
    episode = read_episode(scene, *recorded())
    for found, wanted in (
        (episode.local, LOCAL),
        (episode.rsu, RSU[:, ::-1]),  # by network, "deep" before "flat"
        (episode.server, SERVER[:, None]),
        (episode.position, np.column_stack([OWN, PLACE])),
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_decisions_are_the_best_scores_of_those_allowed(scene):
    episode = read_episode(scene, *recorded())
    np.testing.assert_array_equal(episode.kept, WANTED_KEPT)
    np.testing.assert_array_equal(episode.node, WANTED_NODE)


def test_cells_say_what_was_decided(scene):
    drawn = decisions(scene, WANTED_KEPT, WANTED_NODE)
    assert re.findall("<title>slot (.*?)</title>", drawn) == [
        "1, client 1 (flat): sends all layers to vehicle 1",
        "2, client 1 (flat): keeps 1 of 2 layers, sends the rest to the RSU",
        "3, client 1 (flat): keeps all 2 layers",
        "1, client 2 (deep): keeps all 3 layers",
        "2, client 2 (deep): sends all layers to the RSU",
        "3, client 2 (deep): keeps 2 of 3 layers, sends the rest to vehicle 1",
    ]
    assert "33 % at home, 33 % RSU, 33 % service vehicles" in drawn
    assert re.findall(r'"told".*?>(.*?)</text>', drawn) == [
        "V1",
        "0",
        "R",
        "1",
        "–",
        "2",
        "–",
        "3",
        "R",
        "0",
        "V1",
        "2",
    ]
    heights = [float(h) for h in re.findall(r'"cell kept".*?height="([\d.]+)"', drawn)]
    np.testing.assert_allclose(np.array(heights) / 37, [0, 1 / 2, 1, 1, 0, 2 / 3], atol=1e-3)


def test_lines_of_the_road_end_where_the_vehicles_do(scene):
    drawn = road(scene, read_episode(scene, *recorded()))
    paths = re.findall(r'<path d="M([\d.]+) ([\d.]+)L.*?L([\d.]+) ([\d.]+)"', drawn)
    ends = np.array(paths, float)  # client 1, client 2, vehicle 1: -200 to -100, 10 to 80, 200 to 100
    assert ends.shape == (3, 4) and np.ptp(ends[:, 0]) == np.ptp(ends[:, 2]) == 0
    per_metre = (ends[0, 1] - ends[2, 1]) / 400
    np.testing.assert_allclose((ends[:, 3] - ends[2, 1]) / per_metre, 200 - np.array([-100, 80, 100]), atol=0.2)
    assert all(word in drawn for word in (">150 m<", "<title>RSU</title>", "<title>vehicle 1</title>", ">C2<"))


def test_queues_have_a_picture_for_each_kind_of_place(scene):
    clients, rsu, vehicles = queues(scene, read_episode(scene, *recorded()))
    assert "at the last slot: client 1 (flat) 2, client 2 (deep) 9" in clients
    assert "deep at the RSU 2, flat at the RSU 1" in rsu and "unused" not in rsu
    assert "vehicle 1 6" in vehicles


def test_names_are_moved_apart_but_not_past_the_edge():
    assert spread([10, 50, 12], 5, 100) == [10, 50, 15]
    assert spread([98, 99, 20], 5, 100) == [95, 100, 20]


def save(folder, obs, scores, facts=FACTS):
    (folder / "facts.json").write_text(json.dumps(facts))
    for path in folder.glob("packs/*/rollouts.npz"):
        lanes = len(np.load(path)["mask"])
        table = {"obs": np.tile(obs, (lanes, 1, 1, 1, 1)), "mask": np.ones((lanes, 1, 3), np.float32)}
        if scores is not None:
            table["action"] = np.tile(scores, (lanes, 1, 1, 1, 1))
        np.savez(path, **table)


def section(folder):
    """The section's markup; nothing where the page has none."""
    _, found, rest = build_report(folder).read_text().partition('<section id="road">')
    return found and rest.partition("</section>")[0]


def test_the_page_draws_the_best_setting_of_each_method(run_folder):
    assert not section(run_folder)
    save(run_folder, *recorded())
    found = section(run_folder)
    assert found.count("<h3>") == 3 and "diffusion_ql q_weight=1, seed" in found
    assert found.count('aria-label="Queues of the RSU') == 3
    assert found.count("slot 2, client 2 (deep): sends all layers to the RSU") == 3


@pytest.mark.parametrize("what", ["no actions", "other actions"])
def test_without_scores_there_are_no_decisions(run_folder, what):
    obs, scores = recorded()
    save(run_folder, obs, None if what == "no actions" else scores[..., :3])
    found = section(run_folder)
    assert "Queues of the RSU" in found and "Decisions" not in found


@pytest.mark.parametrize("what", ["not finite", "another task", "fewer facts"])
def test_what_cannot_be_drawn_costs_only_the_section(run_folder, what):
    obs, scores = recorded()
    facts = {key: value for key, value in FACTS.items() if key != "depths"} if what == "fewer facts" else FACTS
    if what == "not finite":
        obs[2, 1, 0] = np.nan
    save(run_folder, obs[..., :9] if what == "another task" else obs, scores, facts)
    assert not section(run_folder)
