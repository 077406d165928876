"""Config files and flags: what is accepted, what is recorded, and what a mistake is told."""

from pathlib import Path
import re

from absl import flags
import numpy as np
import pytest

from jaxdiff.cli import config as configs
from jaxdiff.cli import config_files, overrides
from jaxdiff.cli.study import make_members

SOURCE = """
from ml_collections import ConfigDict, config_dict


def get_config(arg="pointmaze-umaze"):
    config = ConfigDict({"algorithm": "diffusion_ql", "env": arg, "seed": 0, "batch_size": 256, "note": None})
    config.dataset = config_dict.placeholder(str)
    config.warmup = config.get_ref("batch_size") * 2
    config.hparams = ConfigDict({"lr": 3e-4, "q_weight": 1.0})
    config.model = ConfigDict({"hidden": (256, 256), "twin": True})
    return config


def sweep_lr():
    for lr in (1e-3, 1e-4):
        yield {"hparams.lr": lr}


def sweep_seed():
    return ({"seed": seed} for seed in range(3))


sweep_count = 2
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "study.py"
    file.write_text(SOURCE)
    return file


def parse(*argv: str) -> configs.Parsed:
    values = flags.FlagValues()
    configs.define_flags(values)
    return configs.parse(argv, values, usage="jaxdiff train: for the test")


def test_defaults(path):
    parsed = parse(f"--config={path}")
    assert (parsed.overrides, parsed.sweep, parsed.workdir) == ({}, (), None)
    assert (parsed.dry_run, parsed.lanes) == (False, "auto")
    assert parsed.config.hparams.lr == 3e-4
    assert parsed.config.is_locked
    assert parsed.config_path == path


def test_config_argument_reaches_get_config(path):
    parsed = parse("--config", f"{path}:brax-hopper")
    assert parsed.config.env == "brax-hopper"
    assert parsed.config_name == f"{path}:brax-hopper"


def test_overrides_are_typed_recorded_and_may_precede_the_config(path):
    parsed = parse(
        "--config.hparams.lr=1", "--config.seed", "3", "--noconfig.model.twin", "--config.model.hidden=64,32",
        "--config.dataset=mine.hdf5", f"--config={path}", "--sweep=lr,seed", "--lanes=map", "--dry_run",
        "--workdir=out",
    )  # fmt: skip
    assert parsed.overrides == {
        "hparams.lr": 1.0, "seed": 3, "model.twin": False, "model.hidden": (64, 32), "dataset": "mine.hdf5",
    }  # fmt: skip
    assert isinstance(parsed.config.hparams.lr, float)
    assert parsed.config.model.hidden == (64, 32)
    assert parsed.sweep == ("lr", "seed")
    assert (parsed.lanes, parsed.dry_run, parsed.workdir) == ("map", True, "out")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.hparam.lr=1", r"^unknown config key 'hparam.lr'; did you mean 'hparams.lr'\?"),
        ("--config.lr=1", r"^unknown config key 'lr'; did you mean 'hparams.lr'\?"),
        ("--config.hparams.q_wieght=1", "did you mean 'hparams.q_weight'"),
        ("--config.hparams.lr=fast", r"^config key 'hparams.lr' wants float, got 'fast'\.$"),
        ("--config.seed=1.5", r"^config key 'seed' wants int, got '1.5'\.$"),
        ("--config.hparams=1", "is a group; set one of its keys: hparams.lr, hparams.q_weight"),
        ("--config.note=hello", "placeholder"),
        ("--sweep=sede", r"^unknown sweep 'sede' in study.py; did you mean 'seed'\? known: lr, seed\.$"),
        ("--sweep=count", "unknown sweep 'count'"),
        ("--lane=map", "'lane'. Did you mean: lanes"),
        ("--lanes=rows", "auto|vmap|map|shard|pmap"),
        ("stray", "unexpected argument 'stray'"),
        ("--workdir=", "--workdir is empty; give the folder to write"),
    ],
)
def test_mistake_is_named_before_anything_runs(path, argument, message):
    with pytest.raises((KeyError, ValueError)) as caught:
        parse(f"--config={path}", argument)
    assert re.search(message, caught.value.args[0])


def test_missing_config_lists_the_shipped_ones(monkeypatch, path):
    monkeypatch.setattr(config_files, "shipped", lambda: {"diffusion_ql": path, "bandit": path})
    with pytest.raises(ValueError, match="--config is missing.*diffusion_ql, bandit"):
        parse("--sweep=lr")
    with pytest.raises(KeyError, match="did you mean 'diffusion_ql'.*known: bandit, diffusion_ql"):
        parse("--config=difusion_ql")
    assert parse("--config=bandit").config_path == path
    assert parse("--config=bandit.py:ant").config.env == "ant"


@pytest.mark.parametrize(
    ("source", "flag", "message"),
    [
        ("x = 1", "", r"has no get_config\(\)"),
        ("def get_config(): return {}", "", "must return a ConfigDict"),
        ("def get_config(): return None", ":ant", "cannot take the argument 'ant'"),
        ("def get_config(arg): return None", "", "cannot take no argument"),
    ],
)
def test_config_file_without_a_usable_get_config_says_why(tmp_path, source, flag, message):
    file = tmp_path / "bad.py"
    file.write_text(source)
    with pytest.raises(ValueError, match=message):
        parse(f"--config={file}{flag}")


def test_load_equals_the_command_line(path):
    parsed = parse(f"--config={path}", "--config.hparams.lr=.5")
    assert configs.load(str(path), [("hparams.lr", "0.5")]) == parsed.config


def test_sweeps_yield_flat_dicts(path):
    found = config_files.sweeps(path)
    assert list(found) == ["lr", "seed"]
    assert list(found["lr"]()) == [{"hparams.lr": 1e-3}, {"hparams.lr": 1e-4}]


ADDING = """
def sweep(add):
    for lr in (1e-3, 1e-4):
        add(**{"config.hparams.lr": lr})


def sweep_best(add, seeds=2):
    for seed in range(seeds):
        add(seed=seed)
"""


def test_a_sweep_may_add_its_points(path):
    path.write_text(SOURCE + ADDING)
    found = config_files.sweeps(path)
    assert list(found) == ["lr", "seed", "sweep", "best"]
    assert list(found["sweep"]()) == [{"config.hparams.lr": 1e-3}, {"config.hparams.lr": 1e-4}]
    assert list(found["best"]()) == [{"seed": 0}, {"seed": 1}]
    assert parse(f"--config={path}", "--sweep=sweep").sweep == ("sweep",)


def test_a_star_is_every_sweep_of_the_config(path):
    assert parse(f"--config={path}", "--sweep=*").sweep == ("lr", "seed")
    path.write_text(SOURCE.partition("def sweep_lr")[0])
    assert parse(f"--config={path}", "--sweep=*").sweep == ()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def sweep_x(add, more): pass", r"sweep_x\(add, more\) wants 2 arguments; it may have one, add"),
        ("def sweep(): pass\ndef sweep_sweep(): pass", r"has sweep\(\) and sweep_sweep\(\), both named sweep"),
    ],
)
def test_sweep_functions_that_cannot_be_called_are_refused(path, source, message):
    path.write_text(f"{SOURCE}\n{source}\n")
    with pytest.raises(ValueError, match=message):
        config_files.sweeps(path)


def test_every_shipped_config_loads_and_its_sweeps_apply():
    assert config_files.shipped()
    for name, file in config_files.shipped().items():
        config = configs.load(name)
        assert config.is_locked, name
        for sweep, function in config_files.sweeps(file).items():
            points = list(function())
            assert points, f"{name}: sweep_{sweep} is empty"
            make_members(config, points, sweep)


def test_apply_overrides_leaves_the_original_and_follows_references(path):
    config = configs.load(str(path))
    changed = overrides.apply_overrides(
        config, {"hparams.lr": 1, "model.hidden": [64, 64], "batch_size": np.int64(32), "note": "any", "dataset": "d"}
    )
    assert isinstance(changed.hparams.lr, float)
    assert changed.model.hidden == (64, 64)
    assert (changed.batch_size, changed.warmup, changed.note) == (32, 64, "any")
    assert (config.batch_size, config.warmup, config.hparams.lr) == (256, 512, 3e-4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"hparams.rl": 1.0}, "unknown config key 'hparams.rl'; did you mean 'hparams.lr'"),
        ({"hparams.lr": "1"}, r"'hparams.lr' wants float, got '1' \(str\)"),
        ({"seed": 1.0}, "'seed' wants int, got 1.0"),
        ({"seed": True}, "'seed' wants int, got True"),
        ({"model.twin": 1}, "'model.twin' wants bool, got 1"),
        ({"model": {}}, "'model' is a group"),
    ],
)
def test_wrong_override_of_a_member_is_named(path, override, message):
    config = configs.load(str(path))
    with pytest.raises((KeyError, ValueError), match=message):
        overrides.apply_overrides(config, override)


def test_help_prints_usage_and_flags_without_a_config(capsys):
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("jaxdiff train: for the test\n")
    assert all(f"--{name}:" in text for name in ("config", "config.KEY", "sweep", "workdir", "dry_run", "lanes"))


def test_parse_flags_mixes_flags_and_positional_arguments():
    values = flags.FlagValues()
    flags.DEFINE_integer("episodes", 10, "", flag_values=values)
    assert configs.parse_flags(["runs/a", "--episodes=3", "runs/b"], values) == ["runs/a", "runs/b"]
    assert values.episodes == 3
