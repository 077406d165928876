"""`jaxdiff data`, as a user types it."""

import h5py
import numpy as np
import pytest
from synthetic_d4rl import random_arrays

from jaxdiff.cli import ensure
from jaxdiff.cli.main import main
from jaxdiff.data import catalog, load
from jaxdiff.data.card import card_path, file_sha256, read_card


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDIFF_DATA", str(tmp_path / "root"))
    return tmp_path / "root"


def test_make_is_bit_exact_from_its_seed(tmp_path, capsys):
    paths = [tmp_path / name for name in ("a.hdf5", "b.hdf5", "c.hdf5")]
    for path, seed in zip(paths, (4, 4, 5), strict=True):
        assert main(["data", "make", "pointmaze-umaze", f"--seed={seed}", "--steps=700", f"--out={path}"]) == 0
    a, b, c = map(file_sha256, paths)
    assert a == b != c
    assert card_path(paths[0]).read_bytes() == card_path(paths[1]).read_bytes()
    assert a[:16] in capsys.readouterr().out


def test_made_data_load_with_their_environments_facts(tmp_path):
    path = tmp_path / "maze.hdf5"
    main(["data", "make", "pointmaze-umaze-dense", "--steps=700", "--noise=0.1", f"--out={path}"])
    dataset, info = load(path)
    assert (info.name, info.env, info.obs_dim, info.action_dim) == (
        "pointmaze-umaze-dense",
        "pointmaze-umaze-dense",
        4,
        2,
    )
    assert info.num_episodes == 3
    assert dataset.num_transitions == 697
    assert info.reference_scores == (68.537689, 193.66285642381482)  # maze2d-umaze-dense-v1
    assert read_card(path).arguments["noise"] == 0.1


def test_make_without_out_names_unusual_arguments(root):
    main(["data", "make", "pointmaze-umaze", "--steps=701", "--seed=2"])
    assert [path.name for path in root.glob("*.hdf5")] == ["pointmaze-umaze-seed2-steps701.hdf5"]
    assert catalog.resolve("pointmaze-umaze-seed2-steps701") == root / "pointmaze-umaze-seed2-steps701.hdf5"


def test_ensure_makes_a_missing_dataset_once(root, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(ensure, "make", lambda name, path: (made.append(name), path.parent.mkdir(), path.touch()))
    for _ in range(2):
        assert ensure.ensure("pointmaze-umaze") == root / "pointmaze-umaze.hdf5"
    assert made == ["pointmaze-umaze"]
    assert "making pointmaze-umaze" in capsys.readouterr().err


def test_ensure_takes_a_path_at_its_word(save, arrays):
    path = save(arrays)
    assert ensure.ensure(path) == path
    with pytest.raises(FileNotFoundError, match="did you mean 'data.hdf5'"):
        ensure.ensure(path.with_name("dota.hdf5"))
    with pytest.raises(KeyError, match="unknown dataset 'pointmaze-umazes'; did you mean 'pointmaze-umaze'"):
        ensure.ensure("pointmaze-umazes")


def test_info_describes_a_file(save, capsys):
    arrays = random_arrays(9)
    arrays["rewards"] = np.arange(9, dtype=np.float32)
    arrays["terminals"], arrays["timeouts"] = np.arange(9) == 2, np.arange(9) == 6
    path = save(arrays, "hopper-medium-v2.hdf5")
    assert main(["data", "info", str(path)]) == 0
    out = capsys.readouterr().out
    for expected in (
        "(9, 3)",
        "7, in 3 episodes",
        "1 terminations, 1 time limits",
        "return             10.50 +- 7.50",
        f"normalised return  {100 * (10.5 + 20.272305) / (3234.3 + 20.272305):.1f}",
        file_sha256(path),
        "card               none",
    ):
        assert expected in out


def test_import_writes_the_projects_format(save, arrays, tmp_path, capsys):
    del arrays["timeouts"]
    arrays["terminals"][:] = False
    arrays["actions"] *= 2.5
    path, out = save(arrays, "mine.hdf5"), tmp_path / "new" / "out.hdf5"
    argv = ["data", "import", str(path), f"--out={out}", "--action_limit=2.5", "--max_episode_steps=20"]
    assert main([*argv, "--name=hopper-mine", "--env=gymnasium-Hopper-v5", "--licence=CC0"]) == 0
    dataset, info = load(out)
    np.testing.assert_allclose(dataset.transitions.action[:19], arrays["actions"][:19] / 2.5, rtol=1e-6)
    assert (info.num_transitions, info.num_episodes) == (57, 3)
    assert (info.name, info.env) == ("hopper-mine", "gymnasium-Hopper-v5")
    assert main(["data", "info", str(out)]) == 0
    assert "licence: CC0" in capsys.readouterr().out


def test_import_does_not_write_over_a_file_without_a_card(save, arrays, capsys):
    path = save(arrays)
    before = path.read_bytes()
    assert main(["data", "import", str(path), f"--out={path}"]) == 2
    assert "exists and was not written by jaxdiff" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_list_names_what_can_be_made_and_what_is_there(root, capsys):
    root.mkdir()
    (root / "mine.hdf5").touch()
    (root / "pointmaze-large.hdf5").touch()
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in catalog.GENERATED)
    assert [line.split()[0] for line in out.splitlines() if line.endswith("on disk")] == ["pointmaze-large"]
    assert "\n  mine\n" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["mkae"], "unknown command 'data mkae'; did you mean 'make'"),
        (["make"], "got no argument; usage: jaxdiff data make NAME"),
        (["make", "pointmaze-huge"], "unknown dataset 'pointmaze-huge'"),
        (["make", "pointmaze-umaze", "--steps=1"], "--steps"),
        (["make", "pointmaze-umaze", "--noise=nan"], "--noise=nan; it must be finite"),
        (["make", "pointmaze-umaze", "--noise=inf"], "--noise=inf; it must be finite"),
        (["make", "pointmaze-umaze", "--seed=99999999999999999999"], "is not an integer in the range [0, 2147483647]"),
        (["make", "pointmaze-umaze", "--out=/dev/null/x.hdf5"], "/dev/null: is a file, where a folder is needed"),
        (["make", "pointmaze-umaze", "--sede=1"], "Unknown command line flag 'sede'. Did you mean: seed"),
        (["make", "pointmaze-umaze", "--out=x.npz"], "written as HDF5"),
        (["info", "nowhere.hdf5"], "no such file"),
        (["info", "a", "b"], "usage: jaxdiff data info FILE"),
        (["import", "nowhere.hdf5"], "no --out"),
    ],
)
def test_a_wrong_request_is_one_line_and_exits_2(argv, message, capsys):
    assert main(["data", *argv]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


@pytest.mark.parametrize("argv", [[], ["--help"], ["make", "--help"], ["info", "-h"], ["import", "--help"]])
def test_help_exits_0(argv, capsys):
    assert main(["data", *argv]) == 0
    assert "jaxdiff data" in capsys.readouterr().out


def test_made_files_hold_d4rls_keys(tmp_path):
    path = tmp_path / "maze.hdf5"
    main(["data", "make", "pointmaze-umaze", "--steps=700", f"--out={path}"])
    with h5py.File(path) as file:
        assert sorted(file) == ["actions", "infos", "observations", "rewards", "terminals", "timeouts"]
        assert file["infos/goal"].shape == (700, 2)


def test_import_refuses_before_it_writes_and_names_the_file_it_read(save, arrays, tmp_path, capsys):
    good, out = save(arrays), tmp_path / "new" / "out.hdf5"
    ended = save(arrays, "ended.hdf5", timeouts=np.ones(60, bool))
    for path, flag, message in (
        (good, "--env=pointmaze-umase", "unknown environment 'pointmaze-umase'; did you mean 'pointmaze-umaze'"),
        (good, "--action_limit=nan", "action_limit=nan; it must be positive and finite"),
        (ended, "--name=x", f"{ended}: no transition is left of 60 rows"),
    ):
        assert main(["data", "import", str(path), f"--out={out}", flag]) == 2
        assert message in capsys.readouterr().err
        assert not out.parent.exists()


def test_long_training_is_not_started_for_a_folder_that_takes_no_file(root, monkeypatch, capsys):
    monkeypatch.setattr(ensure, "make", lambda *args, **kwargs: pytest.fail("it was started"))
    root.write_text("a file in the data folder's place")
    assert main(["data", "make", "brax-halfcheetah", "--quality=medium"]) == 2
    assert f"{root}: is a file, where a folder is needed; choose another --out" in capsys.readouterr().err
