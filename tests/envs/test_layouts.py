"""Mazes as text: what is refused, and goals that are put elsewhere."""

import numpy as np
import pytest

from jaxdiff.envs import CUSTOM_MAZES, layouts, make, pointmaze

U = r"#####\#GOO#\###O#\#OOO#\#####"
BARE = U.replace("G", "O")


def test_the_goal_of_a_single_goal_maze_is_an_observation_at_rest():
    for size, (i, j) in (("umaze", (1, 1)), ("medium", (6, 6)), ("large", (7, 9))):
        spec = make(f"pointmaze-{size}").spec
        assert (spec.goal, spec.goal_dim, spec.obs_dim) == ((i, j, 0.0, 0.0), 0, 4)


def test_a_goal_option_replaces_the_layouts_own():
    for layout in (U, BARE, "umaze"):
        env = pointmaze.pointmaze(layout, goal=(3, 1))
        assert env.spec.goal == (3.0, 1.0, 0.0, 0.0)
        assert env.facts["goal"] == [3.0, 1.0]
        assert env.facts["layout"] == ["#####", "#OOO#", "###O#", "#GOO#", "#####"]
        assert env.spec.name == "pointmaze-custom"
        assert env.spec.reference_scores is None
    own = pointmaze.pointmaze(BARE, goal=(1, 1)).spec
    assert own == make("pointmaze-umaze").spec  # D4RL's task by another road


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ((2, 2), r"goal cell \(2, 2\) is a wall; the nearest free cells are \[\(1, 2\), \(2, 3\), \(3, 2\)\]"),
        ((2, 0), r"goal cell \(2, 0\) is a wall; the nearest free cells are \[\(1, 1\), \(3, 1\)\]"),
        ((9, 3), r"\(9, 3\) is outside the maze of 5 rows and 5 columns; the nearest free cells are \[\(3, 3\)\]"),
        ((-2, 1), r"\(-2, 1\) is outside the maze"),
    ],
)
def test_a_goal_inside_a_wall_is_answered_with_the_nearest_free_cells(goal, message):
    with pytest.raises(ValueError, match=message):
        make("pointmaze-umaze", goal=goal)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (r"#####\#GOO#\#####\#OOO#\#####", r"free cell \(3, 1\) cannot be reached from \(1, 1\); open a wall"),
        (r"####\#GO#\##O#\#O##\####", r"free cell \(3, 1\) cannot be reached"),  # corners are no way
        (r"###\###\###", "no free cell"),
        (BARE, r"0 goals; mark exactly one free cell with 'G', or say goal=\(row, column\)"),
        (U.replace("OOO", "OGO"), "2 goals; mark exactly one"),
        (U.replace("OOO#", "OxO#"), "unknown character 'x' at row 3, column 2"),
        (U[:-1] + "O", "not closed: 'O' on the border at row 4, column 4"),
    ],
)
def test_a_malformed_maze_is_refused_by_every_way_in(layout, message):
    with pytest.raises(ValueError, match=message):
        pointmaze.pointmaze(layout)
    with pytest.raises(ValueError, match=message):
        make("pointmaze-custom", maze=layout)


def test_custom_names_make_the_maze_they_are_given():
    expected = {"": 0, "-multi": 2}
    for name in CUSTOM_MAZES:
        env = make(name, maze=U.replace("#OOO#", "##OO#"))
        assert env.spec.name == name
        assert env.spec.goal_dim == expected["-multi" if "multi" in name else ""]
    assert make("pointmaze-custom", maze=U).spec == make("pointmaze-umaze").spec


@pytest.mark.parametrize("maze", ["", "umaze", ()])
def test_a_custom_name_needs_a_maze(maze):
    with pytest.raises(ValueError, match=r"needs a maze, rows of '#', 'O' and 'G' parted by backslashes"):
        make("pointmaze-custom-dense", maze=maze)
    with pytest.raises(ValueError, match="needs a maze"):
        make("pointmaze-custom")


def test_walls_and_free_cells_are_all_there_is():
    walls, free = layouts.walls_of("large"), layouts.free_cells(layouts.LAYOUTS["large"])
    assert walls.sum() + len(free) == walls.size == 9 * 12
    assert not any(walls[cell] for cell in free)
    np.testing.assert_array_equal(np.argwhere(~walls), free)
