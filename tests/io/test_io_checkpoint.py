import logging
import os
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from jaxdiff.io import cards, files
from jaxdiff.io.checkpoint import Checkpoints
from jaxdiff.types import TrainState


def state(value=1.0):
    params = {"dense": {"kernel": jnp.full((3, 2), value), "bias": jnp.zeros(2, jnp.bfloat16)}}
    return TrainState(
        step=jnp.asarray(7, jnp.int32),
        params=params,
        target_params=(params, None),
        opt_state=optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(params),
        hparams={"lr": jnp.asarray(1e-3), "keys": jax.random.split(jax.random.key(3), 4), "key": jax.random.key(5)},
    )


def number(value):
    return {"x": jnp.full((4,), float(value))}


def shapes(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def assert_same(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert isinstance(a, jax.Array)
        assert a.dtype == b.dtype
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def three(tmp_path):
    """Checkpoints of steps 10, 20 and 30."""
    with Checkpoints(tmp_path / "c", keep_last=3) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, number(step))
    return tmp_path / "c"


@pytest.mark.parametrize("like", [state, lambda: shapes(state())], ids=["arrays", "shapes"])
def test_train_state_with_typed_keys_round_trips(tmp_path, like):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, state(), metadata={"wall_seconds": 1.5})
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(like())
        assert checkpoints.metadata(7) == {"wall_seconds": 1.5}
    assert_same(restored, state())


def test_restored_keys_draw_the_same_numbers(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, state())
        key = checkpoints.restore(shapes(state())).hparams["key"]
    np.testing.assert_array_equal(jax.random.normal(key, (3,)), jax.random.normal(jax.random.key(5), (3,)))


def test_the_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: x * x - 7.0, tree), donate_argnums=0)
    before = np.arange(200_000, dtype=np.float32)
    with Checkpoints(tmp_path) as checkpoints:
        tree = {"x": jnp.array(before)}
        for step in range(4):
            checkpoints.save(step, tree)
            wanted = np.array(tree["x"].copy())
            donated = tree
            tree = overwrite(tree)
            assert donated["x"].is_deleted()  # the save holds no view that would stop XLA reusing the buffer
            np.testing.assert_array_equal(checkpoints.restore(shapes(tree))["x"], wanted)


def test_numpy_arrays_are_copied_and_come_back_as_numpy(tmp_path):
    tree = {"x": np.arange(100_000), "n": 3}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, tree)
        tree["x"][:] = 0
        restored = checkpoints.restore(tree)
    assert isinstance(restored["x"], np.ndarray)
    np.testing.assert_array_equal(restored["x"], np.arange(100_000))
    assert restored["n"] == 3


def test_last_and_best_are_kept(tmp_path):
    scores = {10: 1.0, 20: 9.0, 30: 3.0, 40: float("nan"), 50: 2.0, 60: None}
    with Checkpoints(tmp_path, keep_last=2, keep_best=1) as checkpoints:
        for step, score in scores.items():
            checkpoints.save(step, number(step), score=score)
        assert checkpoints.steps() == [20, 50, 60]
        assert (checkpoints.latest_step(), checkpoints.best_step()) == (60, 20)
    assert sorted(os.listdir(tmp_path)) == ["20", "50", "60"]
    with Checkpoints(tmp_path, keep_last=2, keep_best=1) as checkpoints:  # scores outlive the process
        assert checkpoints.best_step() == 20
        checkpoints.save(70, number(70), score=10.0)
        assert checkpoints.steps() == [60, 70]
        np.testing.assert_array_equal(checkpoints.restore(number(0), 60)["x"], np.full(4, 60.0))


def test_without_scores_there_is_no_best(tmp_path):
    with Checkpoints(tmp_path, keep_last=1, keep_best=3) as checkpoints:
        for step in range(3):
            checkpoints.save(step, number(step))
        assert (checkpoints.steps(), checkpoints.best_step()) == ([2], None)


def test_equal_scores_favour_the_newest(tmp_path):
    with Checkpoints(tmp_path, keep_last=1, keep_best=1) as checkpoints:
        for step in range(3):
            checkpoints.save(step, number(step), score=5.0)
        assert checkpoints.best_step() == 2


def test_an_empty_folder_has_no_steps_and_is_not_created_by_reading(tmp_path):
    with Checkpoints(tmp_path / "none") as checkpoints:
        assert (checkpoints.latest_step(), checkpoints.best_step(), checkpoints.steps()) == (None, None, [])
        with pytest.raises(ValueError, match="no whole checkpoint"):
            checkpoints.restore(number(0))
        with pytest.raises(ValueError, match="no checkpoint of step 5"):
            checkpoints.restore(number(0), 5)
        with pytest.raises(KeyError, match="no checkpoint of step 5"):
            checkpoints.metadata(5)
    assert not (tmp_path / "none").exists()


def test_saving_a_step_again_replaces_it(three):
    with Checkpoints(three, keep_last=3) as checkpoints:
        checkpoints.save(20, number(-1))
        np.testing.assert_array_equal(checkpoints.restore(number(0), 20)["x"], np.full(4, -1.0))
        assert checkpoints.steps() == [10, 20, 30]


# Every kind of file in a step folder; "data" stands for those with random names.
FILES = ["card.json", "manifest.ocdbt", "_METADATA", "_CHECKPOINT_METADATA", "data"]


def damage(folder, name, how):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    hit = [path for path in paths if path.name == name or (name == "data" and path.parent.name == "d")]
    assert hit
    for path in hit:
        size = path.stat().st_size
        if how == "delete":
            path.unlink()
        elif how == "flip":
            content = path.read_bytes()
            path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        else:
            os.truncate(path, 0 if how == "empty" else size // 2)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["half", "empty", "delete"])
def test_a_truncated_newest_checkpoint_gives_way_to_the_one_before(three, caplog, name, how):
    damage(three / "30", name, how)
    with caplog.at_level(logging.WARNING), Checkpoints(three, keep_last=3) as checkpoints:
        assert checkpoints.latest_step() == 20
        np.testing.assert_array_equal(checkpoints.restore(number(0))["x"], np.full(4, 20.0))
        assert (three / "30").is_dir()  # reading deletes nothing
        assert f"checkpoint at {three / '30'} is passed over" in caplog.text
        checkpoints.save(30, number(31))
        np.testing.assert_array_equal(checkpoints.restore(number(0))["x"], np.full(4, 31.0))


def test_changed_content_of_the_same_size_gives_way_to_the_one_before(three, caplog):
    damage(three / "30", "data", "flip")
    with caplog.at_level(logging.WARNING), Checkpoints(three, keep_last=3) as checkpoints:
        np.testing.assert_array_equal(checkpoints.restore(number(0))["x"], np.full(4, 20.0))
        assert checkpoints.latest_step() == 20
        assert "changed since it was written" in caplog.text


def test_an_explicitly_wanted_damaged_step_is_an_error(three):
    damage(three / "20", "data", "flip")
    with Checkpoints(three) as checkpoints, pytest.raises(ValueError, match=r"is damaged .* steps: \[10, 30\]"):
        checkpoints.restore(number(0), 20)


def test_when_all_are_damaged_restore_says_so(three):
    for step in ("10", "20", "30"):
        damage(three / step, "data", "flip")
    with Checkpoints(three) as checkpoints, pytest.raises(ValueError, match="no whole checkpoint"):
        checkpoints.restore(number(0))


def test_what_a_killed_save_left_is_ignored_then_removed(three):
    shutil.copytree(three / "30", three / "40.orbax-checkpoint-tmp")
    shutil.copytree(three / "30", three / "40")
    (three / "40" / "card.json").unlink()
    with Checkpoints(three, keep_last=9) as checkpoints:
        assert checkpoints.latest_step() == 30
        checkpoints.save(50, number(50))
        checkpoints.wait()
        assert sorted(os.listdir(three)) == ["10", "20", "30", "50"]


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (
            {"x": jnp.zeros(5)},
            r"holds 'x' as float32\[4\], the program wants 'x' as float32\[5\]; did the config change",
        ),
        ({"x": jnp.zeros(4, jnp.int32)}, r"holds 'x' as float32\[4\], the program wants 'x' as int32\[4\]"),
        ({"x": jnp.zeros(4), "y": jnp.zeros(1)}, r"holds no 'y', the program wants 'y' as float32\[1\]"),
        ({}, r"holds 'x' as float32\[4\], the program wants no 'x'"),
    ],
)
def test_another_programs_checkpoint_is_refused_in_one_line(three, like, message):
    with Checkpoints(three) as checkpoints:
        with pytest.raises(ValueError, match=message) as error:
            checkpoints.restore(like)
        assert "\n" not in str(error.value)
        assert checkpoints.latest_step() == 30  # a mismatch is not damage


def test_a_failed_write_is_reported_and_earlier_checkpoints_stay(three):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = {"x": jax.random.normal(jax.random.key(0), (500_000,))}
    checkpoints = Checkpoints(three, keep_last=1)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # what a full disk or a quota does
        checkpoints.save(40, big)
        with pytest.raises((OSError, ValueError)):
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoints.latest_step() == 30
    checkpoints.save(50, big)
    np.testing.assert_array_equal(checkpoints.restore(big)["x"], big["x"])
    assert checkpoints.steps() == [50]
    checkpoints.close()


def test_metadata_without_a_json_form_is_refused_before_writing(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints, pytest.raises(TypeError, match="no JSON form"):
        checkpoints.save(0, number(0), metadata={"x": object()})
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(("last", "best"), [(0, 1), (1, -1)])
def test_keeping_nothing_is_refused(tmp_path, last, best):
    with pytest.raises(ValueError, match="must be at least"):
        Checkpoints(tmp_path, keep_last=last, keep_best=best)


def test_a_negative_step_is_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="step=-1"):
        checkpoints.save(-1, number(0))


def test_saving_says_nothing(tmp_path, caplog, capfd):
    with caplog.at_level(logging.INFO), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, number(0))
        checkpoints.restore(number(0))
    assert [record.getMessage() for record in caplog.records if record.name == "absl"] == []
    assert capfd.readouterr() == ("", "")


def test_the_card_tells_layout_and_files(three):
    card = files.read_json(three / "30" / "card.json")
    assert card["layout"] == {"x": ["float32", [4]]}
    on_disk = {str(p.relative_to(three / "30")): p.stat().st_size for p in (three / "30").rglob("*") if p.is_file()}
    del on_disk["card.json"]
    assert {name: size for name, (size, _) in card["files"].items()} == on_disk


def test_checkpoints_with_typed_keys_inside_are_read_as_before(tmp_path):
    """They have no line "keys" in their card, and orbax stored the keys as such."""
    tree = {"key": jax.random.key(5), "x": jnp.arange(3.0)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree)
        checkpoints.wait()
    card = files.read_json(tmp_path / "1" / cards.CARD)
    shutil.rmtree(tmp_path / "1")
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False, save_root_metadata=False)
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        manager.save(1, args=ocp.args.StandardSave(tree))
    assert card.pop("keys") == "data"
    files.write_json_atomic(tmp_path / "1" / cards.CARD, {**card, "files": cards.listed(tmp_path / "1")})
    with Checkpoints(tmp_path) as checkpoints:
        found = checkpoints.restore(tree)
    np.testing.assert_array_equal(jax.random.key_data(found["key"]), jax.random.key_data(tree["key"]))
    np.testing.assert_array_equal(found["x"], tree["x"])
