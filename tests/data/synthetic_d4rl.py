"""Random rows under D4RL's names, for the tests of this folder."""

import numpy as np

Arrays = dict[str, np.ndarray]


def random_arrays(num_rows: int = 60, *, seed: int = 0, agents: int | None = None) -> Arrays:
    rng = np.random.default_rng(seed)
    rows = (num_rows,) if agents is None else (num_rows, agents)
    return {
        "observations": rng.normal(size=(*rows, 3)).astype(np.float32),
        "next_observations": rng.normal(size=(*rows, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, size=(*rows, 2)).astype(np.float32),
        "rewards": rng.normal(size=num_rows).astype(np.float32),
        "terminals": rng.random(num_rows) < 0.1,
        "timeouts": rng.random(num_rows) < 0.1,
    }
