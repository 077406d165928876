"""Ray tasks on a real Ray of two nodes, both on this machine: `pytest -m cluster`."""

from collections.abc import Iterator
from pathlib import Path
import sys
from typing import Any

import pytest

from launch.main import main

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("PYTHONPATH", str(ROOT))
        pytest.importorskip("ray")
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        cluster.add_node(num_cpus=1)
        yield cluster
        cluster.shutdown()


def test_two_nodes_finish_the_study_through_failures(cluster, make_study, worker_flag, capfd):
    study = make_study(4)
    study.will(p0="fail", p2="stop kill")
    assert main(["ray", str(study.folder), f"--address={cluster.address}", worker_flag, "--jobs=3"]) == 0
    assert study.finished == set(study.names)
    assert study.visits.count("p0") == 2
    assert study.visits.count("p2") == 3
    assert "shard 2 has ended" in capfd.readouterr().out


def test_a_hopeless_shard_does_not_end_the_others(cluster, make_study, worker_flag, capfd):
    study = make_study(2)
    study.will(p0="fail " * 9)
    flags = [f"--address={cluster.address}", worker_flag, "--retries=1"]
    assert main(["ray", str(study.folder), *flags]) == 1
    assert study.finished == {"p1"}
    assert study.visits.count("p0") == 2
    assert "shard 0 failed" in capfd.readouterr().out


def test_a_lost_node_gives_its_shards_to_another(cluster, make_study, worker_flag):
    """The node goes while its worker waits; what it held is taken up on the node that is left."""
    import threading
    import time

    import ray

    study = make_study(1)
    study.will(p0="wait")
    extra = cluster.add_node(num_cpus=2)  # only here fits a task of two
    done: list[int] = []
    flags = [f"--address={cluster.address}", worker_flag, "--cpus=2"]
    thread = threading.Thread(target=lambda: done.append(main(["ray", str(study.folder), *flags])))
    thread.start()
    end = time.monotonic() + 60
    while not study.visits and time.monotonic() < end:
        time.sleep(0.1)
    assert study.visits == ["p0"]
    cluster.add_node(num_cpus=2)
    cluster.remove_node(extra, allow_graceful=False)
    thread.join(timeout=90)
    assert done == [0], ray.nodes()
    assert study.finished == {"p0"}
    assert sys.modules["ray"] is ray
