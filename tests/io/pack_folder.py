"""Pack folders as a worker leaves them, with real checkpoints of a tiny state, and what must hold of a copy."""

import jax.numpy as jnp
import numpy as np

from jaxdiff.io import files, metrics
from jaxdiff.io.checkpoint import Checkpoints


def state(step):
    """A state that tells its step."""
    return {"x": jnp.full((4,), float(step)), "step": jnp.int32(step)}


class Worker:
    """Writes what `jaxdiff work` writes of one pack, in its order, resuming where the folder ends."""

    def __init__(self, pack, num_updates=40, writer="a"):
        self.pack, self.num_updates = pack, num_updates
        self.checkpoints = Checkpoints(pack.checkpoints)
        self.step, self.table = 0, metrics.MetricTable()
        if self.checkpoints.latest_step() is None:
            members = [{"id": "m", "label": "m", "algorithm": "toy", "overrides": {}, "seed": 0}]
            plan = {"id": pack.id, "lanes": "vmap", "config": {"writer": writer}, "members": members}
            files.write_json_atomic(pack.pack_json, plan)
        else:
            restored = self.checkpoints.restore(state(0))
            self.step = int(restored["step"])
            np.testing.assert_array_equal(restored["x"], self.step)
            self.table = metrics.MetricTable.load(pack.train)
            self.table.truncate_after(self.step)

    def advance(self, score=None):
        """Ten updates and a checkpoint."""
        self.step += 10
        self.table.append(self.step, 1.0, {"alive": np.ones(1, bool), "loss": np.full(1, 1.0 / self.step)})
        self.table.save(self.pack.train)
        self.table.save(self.pack.eval)
        self.checkpoints.save(self.step, state(self.step), score)
        self.checkpoints.wait()

    def finish(self):
        """To the end."""
        while self.step < self.num_updates:
            self.advance()
        self.checkpoints.close()
        files.write_json_atomic(self.pack.done, {"num_updates": self.num_updates, "wall_seconds": 1.0})


def assert_whole_to(pack, step):
    """The folder goes on from `step`, and no row before it is missing; returns the worker that goes on."""
    worker = Worker(pack)
    assert worker.step == step
    assert list(files.read_npz(pack.train)["step"])[: step // 10] == list(range(10, step + 1, 10)) or step == 0
    return worker
