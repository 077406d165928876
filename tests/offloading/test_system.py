"""Constants of the task, and what they add up to at each cut."""

import numpy as np
import pytest

from jaxdiff.offloading import Profile, System, kinds_from_counts, split_action, standard_profiles, tables

SHORT = Profile("short", ("a", "b"), (3.0, 2.0), (1.0, 4.0))
LONG = Profile("long", ("a", "b", "c"), (5.0, 6.0, 7.0), (2.0, 0.5, 8.0))


def test_tables_are_sums_of_layers_and_repeat_their_end():
    table = tables(System(num_clients=2, profiles=(SHORT, LONG)))
    np.testing.assert_array_equal(table.head, [[0, 1, 5, 5], [0, 2, 2.5, 10.5]])
    np.testing.assert_array_equal(table.tail, [[5, 4, 0, 0], [10.5, 8.5, 8, 0]])
    np.testing.assert_array_equal(table.data_mb, [[3, 2, 0, 0], [5, 6, 7, 0]])
    np.testing.assert_array_equal(table.depth, [2, 3])
    table.head[:] = 0.0  # the caller's own
    assert tables(System(num_clients=2, profiles=(SHORT, LONG))).head.sum() > 0


def test_actions_count_cuts_of_the_deepest_network_times_nodes():
    assert System(num_clients=7, num_servers=5).num_actions == 132  # VGG16, six nodes
    assert System(num_clients=1, num_servers=5).num_actions == 72  # AlexNet alone
    actions = np.arange(132)
    cut, node = split_action(actions, 6)
    np.testing.assert_array_equal(cut * 6 + node, actions)
    assert (cut.max(), node.max()) == (21, 5)
    assert split_action(13, 6) == (2, 1)


def test_kinds_go_round_unless_they_are_given():
    assert System(num_clients=5).kinds == (0, 1, 2, 0, 1)
    assert System(num_clients=2, kinds=[2, 2]).kinds == (2, 2)
    assert kinds_from_counts((2, 0, 1)) == (0, 0, 2)


def test_equal_systems_are_one_key():
    assert hash(System(profiles=list(standard_profiles()), client_ghz=[4.0, 6.0])) == hash(System())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_clients": 0}, "num_clients=0 must be a whole number of at least 1"),
        ({"num_servers": -1}, "num_servers=-1"),
        ({"num_servers": 2.0}, "num_servers=2.0"),
        ({"profiles": ()}, "at least one Profile"),
        ({"profiles": ("alexnet",)}, "make_profile or standard_profiles"),
        ({"kinds": (0, 1)}, "2 entries; give one per client, 5"),
        ({"kinds": (0, 1, 2, 3, 0)}, "from 0 to 2"),
        ({"bandwidth_mhz": 0.0}, "bandwidth_mhz=0.0"),
        ({"rsu_ghz": float("nan")}, "rsu_ghz=nan"),
        ({"v": -1.0}, "v=-1.0"),
        ({"noise_dbm": float("inf")}, "noise_dbm=inf"),
        ({"client_ghz": (6.0, 4.0)}, r"client_ghz=\(6.0, 4.0\)"),
        ({"server_ghz": (6.0,)}, "server_ghz"),
        ({"slot_seconds": 0}, "slot_seconds=0"),
        ({"range_m": -150.0}, "range_m"),
    ],
)
def test_impossible_constants_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        System(**settings)


def test_an_unknown_gamma_is_refused():
    with pytest.raises(KeyError, match="unknown gamma 'exakt'; did you mean 'exact'"):
        System(gamma="exakt")


@pytest.mark.parametrize("counts", [(), (1, -1), (0, 0), (1.5,)])
def test_impossible_counts_of_clients_are_refused(counts):
    with pytest.raises(ValueError, match="clients per network"):
        kinds_from_counts(counts)
