"""How far the closed form is from MuJoCo, on a model rebuilt from D4RL's constants: what the docstring promises."""

import jax
import mujoco
import numpy as np
import pytest

from jaxdiff.envs import pointmaze


def mujoco_maze(layout: str) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """A ball on two slides among boxes: radius 0.1, density 1000, damping 1, gear 100, soft frictionless contact."""
    walls = np.argwhere(pointmaze.walls_of(layout))
    boxes = "".join(f'<geom type="box" size=".5 .5 .2" pos="{i + 1} {j + 1} 0"/>' for i, j in walls)
    model = mujoco.MjModel.from_xml_string(f"""
      <mujoco>
        <option timestep=".01" gravity="0 0 0" integrator="Euler"/>
        <default>
          <geom condim="1" margin=".002"/>
          <joint type="slide" damping="1"/>
          <motor gear="100" ctrllimited="true" ctrlrange="-1 1"/>
        </default>
        <worldbody>
          <body pos="1.2 1.2 0">
            <geom type="sphere" size=".1" density="1000"/>
            <joint name="x" axis="1 0 0"/>
            <joint name="y" axis="0 1 0"/>
          </body>
          {boxes}
        </worldbody>
        <actuator><motor joint="x"/><motor joint="y"/></actuator>
      </mujoco>""")
    return model, mujoco.MjData(model)


def mujoco_step(model, data, action):
    data.qvel[:] = np.clip(data.qvel, -5, 5)
    data.ctrl[:] = action
    mujoco.mj_step(model, data)
    return data.qpos.copy(), data.qvel.copy()


def distance_to_walls(position):
    low = np.argwhere(pointmaze.walls_of("umaze")) - 0.7
    return np.linalg.norm(position - np.clip(position, low, low + 1.0), axis=1).min()


def test_steps_equal_mujoco_away_from_walls_and_stay_near_it_at_walls(x64):
    model, data = mujoco_maze("umaze")
    walls, rng = pointmaze.walls_of("umaze"), np.random.default_rng(0)
    step = jax.jit(lambda p, v, a: pointmaze.physics_step(p, v, a, walls))
    cells = np.argwhere(~walls)
    free, moved, turned, apart = [], [], [], []
    for _ in range(20):
        mujoco.mj_resetData(model, data)
        data.qpos[:] = cells[rng.integers(len(cells))] + rng.uniform(-0.1, 0.1, 2)
        data.qvel[:] = 0.1 * rng.standard_normal(2)
        alone = data.qpos.copy(), data.qvel.copy()
        for action in rng.uniform(-1, 1, (300, 2)):
            before = data.qpos.copy(), data.qvel.copy()
            position, velocity = mujoco_step(model, data, action)
            ours = step(*before, action)
            alone = step(*alone, action)
            moved.append(np.linalg.norm(ours[0] - position))
            turned.append(np.linalg.norm(ours[1] - velocity))
            if min(distance_to_walls(before[0]), distance_to_walls(position)) > 0.11:
                free.append(max(np.abs(ours[0] - position).max(), np.abs(ours[1] - velocity).max()))
        apart.append(np.linalg.norm(alone[0] - position))
    assert len(free) > 4000
    assert max(free) < 1e-12
    assert np.percentile(moved, 90) < 1e-12
    assert np.percentile(moved, 99) < 5e-3
    assert max(moved) < 0.03
    assert np.percentile(turned, 99) < 0.5
    assert np.median(apart) < 0.2


@pytest.mark.parametrize(("action", "rest"), [((0.0, 1.0), 3.1966), ((0.0, -1.0), 0.4034)])
def test_resting_points_are_mujocos_to_four_millimetres(action, rest):
    model, data = mujoco_maze("umaze")
    data.qpos[:] = [3.0, 2.0]
    for _ in range(300):
        position, _ = mujoco_step(model, data, action)
    np.testing.assert_allclose(position[1], rest, atol=2e-4)
    np.testing.assert_allclose(position[1], 3.2 if action[1] > 0 else 0.4, atol=4e-3)
