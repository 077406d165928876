"""Makes the datasets of the catalogue: hands environments to the generators, their rows to the writer, keeps behaviour.

What is meant, and docs/data.md says what of it is tested: the same command on the same machine with the same packages
gives the same bytes, whether the behaviour was kept or is trained again. Kept behaviour (a small .npz) makes it quick,
and is what to carry to another machine, where PPO's thousands of updates would amplify the last bit in which its
arithmetic differs; rows rolled out from the same weights there differ too once such bits have grown, but are rows of
the same policies.
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import json
import pathlib
import sys
import time
import zipfile

import jax
import numpy as np

from jaxdiff import behaviour as behaviours
from jaxdiff import envs
from jaxdiff.behaviour import Behaviour, PPOSettings
from jaxdiff.cli import make_games, make_scripted
from jaxdiff.data import card as cards
from jaxdiff.data import catalog, waypoint, writer
from jaxdiff.data.catalog import Arguments
from jaxdiff.envs import layouts, pointmaze, rooms
from jaxdiff.suggest import did_you_mean
from jaxdiff.types import Env

MEASURED_EPISODES = 20  # per checkpoint, for scores and the reference


def make(
    name: str,
    path: pathlib.Path,
    arguments: Arguments = Arguments(),  # noqa: B008 - immutable
    *,
    behaviour_file: pathlib.Path | None = None,
) -> cards.Card:
    """Makes the dataset `name` at `path`, with its card.

    Mazes and scripted agents are made on the CPU, so that a GPU changes nothing; behaviour is trained and rolled out
    on JAX's default device, which the card names.

    Args:
      name: a key of catalog.GENERATED or catalog.CUSTOM.
      path: .hdf5 to write.
      arguments: see there.
      behaviour_file: weights to use in the place of those in the data folder; they must exist.

    Raises:
      KeyError: not such a name, or an unknown backend.
      ValueError: an argument out of range or without meaning for this dataset; training that learnt nothing.
      FileNotFoundError: no behaviour_file, or no file of the prey.
    """
    made = check_meaning(name, arguments, behaviour_file)
    if isinstance(made, catalog.Scripted | catalog.Game):
        with _on_cpu():
            if isinstance(made, catalog.Scripted):
                columns, origin = make_scripted.rows_of(name, made, arguments)
            else:
                columns, origin = make_games.rows_of(name, made, arguments)
        return writer.write(path, columns, origin)
    if not isinstance(made, catalog.Trained):
        return _make_walk(name, path, made, arguments)
    env = envs.make(made.env, backend=arguments.backend)
    where = behaviour_file or catalog.behaviour_path(made.env, arguments)
    run = behaviours.make_run(env)
    settings = PPOSettings(num_steps=arguments.train_steps)
    if behaviour_file is None and not where.exists():
        save_behaviour(where, train_behaviour(env, run, settings, arguments.behaviour_seed))
    behaviour = load_behaviour(where, env, settings if behaviour_file is None else None)
    shares = behaviours.shares(made.quality, behaviour, arguments.num_steps)
    columns = behaviours.collect(_key(arguments.seed, 2), env, run, behaviour.policies, shares)
    origin = _origin(name, made.quality, env, behaviour, [share.policy for share in shares], arguments)
    return writer.write(path, columns, origin)


def train_behaviour(env: Env, run: behaviours.Run, settings: PPOSettings, seed: int) -> Behaviour:
    """Trains with brax's PPO, telling its progress on stderr, and measures every checkpoint."""
    start = time.perf_counter()

    def tell(step: int) -> None:
        done = f"{step:>8} of {settings.num_steps} steps"
        print(f"  PPO on {env.spec.name}: {done}, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)

    steps, policies = behaviours.train(env, settings, seed, tell)
    stacked = behaviours.stack(policies)
    stages = [behaviours.UNIFORM, *range(len(steps))]
    returns = behaviours.measure(_key(seed, 1), run, stacked, stages, MEASURED_EPISODES)
    trained = Behaviour(stacked, steps, returns[1:], returns[0], seed, _provenance(env, settings))
    for step, mean, score in zip(steps, trained.returns.mean(axis=1), trained.scores, strict=True):
        print(f"  {step:>8} steps: return {mean:9.1f}, score {score:6.1f}", file=sys.stderr)
    behaviours.check_learnt(trained, env.spec.name)
    return trained


def _origin(
    name: str, quality: str, env: Env, behaviour: Behaviour, policies: Sequence[int], arguments: Arguments
) -> cards.Origin:
    acting = [policy for policy in policies if policy != behaviours.UNIFORM]
    return cards.Origin(
        name=name,
        generator=f"{quality}: {catalog.QUALITIES[quality]}; actions sampled from a tanh-Gaussian policy of brax's PPO",
        licence=catalog.LICENCE,
        env=env.spec.name,
        arguments={
            "quality": quality,
            "num_steps": arguments.num_steps,
            "backend": env.facts.get("backend"),
            "max_episode_steps": env.spec.max_episode_steps,
            "device": jax.default_backend(),
            "behaviour_seed": behaviour.seed,
            "behaviour_sha256": behaviour.sha256,
            "behaviour": json.loads(behaviour.settings),
            "checkpoint_steps": [int(behaviour.steps[k]) for k in acting],
            "checkpoint_returns": [float(behaviour.returns[k].mean()) for k in acting],
        },
        seed=arguments.seed,
        reference_scores=behaviour.reference_scores,
    )


def save_behaviour(path: pathlib.Path, behaviour: Behaviour) -> None:
    """Writes the behaviour, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def write_to(temporary: pathlib.Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **behaviours.to_arrays(behaviour))  # type: ignore[arg-type]

    writer.atomically(path, write_to)


def load_behaviour(path: pathlib.Path, env: Env, settings: PPOSettings | None = None) -> Behaviour:
    """Reads a behaviour that was trained for `env`, and with these settings where they are given.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a behaviour, or one of another environment, backend or settings.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            behaviour = behaviours.from_arrays(dict(archive))
        trained_on = json.loads(behaviour.settings)
        found = (trained_on["env"], trained_on["backend"])
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, EOFError, OSError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a behaviour ({error}); move it away to train it again.") from error
    wanted = (env.spec.name, env.facts.get("backend"))
    if found != wanted:
        raise ValueError(f"{path}: behaviour of {found[0]} on {found[1]}, {wanted[0]} on {wanted[1]} is needed.")
    if settings is not None and trained_on.get("settings") != json.loads(json.dumps(dataclasses.asdict(settings))):
        raise ValueError(
            f"{path}: trained with other settings than today's, so training again would give other rows; "
            f"use it as --behaviour=FILE --out=NEW.hdf5, or move it away to train again."
        )
    return behaviour


def _make_walk(name: str, path: pathlib.Path, made: catalog.Maze | catalog.Rooms, arguments: Arguments) -> cards.Card:
    """The waypoint controller's rows in a maze, or in the world of rooms."""
    if isinstance(made, catalog.Rooms):
        env = rooms.rooms()
        layout, multi, reference = rooms.LAYOUT, False, None  # nothing is rewarded: there is no score
        maze = waypoint.Maze(
            layout,
            None,
            env.spec.max_episode_steps,
            dense=False,
            landmarks=rooms.LANDMARKS + rooms.START_CELLS,
            both_ways=True,
            passing=0.4,  # so that two regions fit into a plan of 128 steps
        )
        about = "targets are in its regions or at its start as often as in random cells; rewards are 0"
    else:
        size = arguments.maze if made.size == "custom" else made.size
        env = pointmaze.pointmaze(size, dense=made.dense, multi=made.multi)
        layout, multi, reference = tuple(env.facts["layout"]), made.multi, env.spec.reference_scores
        goal = None if multi else layouts.goal_of(layout)
        maze = waypoint.Maze(layout, goal, env.spec.max_episode_steps, made.dense, multi)
        about = f"rewards are those of {'the target, which observations tell' if multi else 'the fixed goal'}"
    noise = made.noise if arguments.noise is None else arguments.noise
    with _on_cpu():
        key = jax.random.key(arguments.seed, impl="threefry2x32")
        columns = waypoint.generate(key, maze, _physics(layout), num_steps=arguments.num_steps, noise=noise)
    told = {"maze": "\\".join(layout)} if arguments.maze else {}
    origin = cards.Origin(
        name=name,
        generator=f"waypoint controller walking between random cells of the maze; {about}",
        licence=catalog.LICENCE,
        env=env.spec.name,
        arguments={
            "num_steps": arguments.num_steps,
            "noise": noise,
            "max_episode_steps": env.spec.max_episode_steps,
            **told,
        },
        seed=arguments.seed,
        reference_scores=reference,
        true_next_observations=multi,
    )
    return writer.write(path, columns, origin)


@functools.cache
def _physics(layout: tuple[str, ...]) -> waypoint.Physics:
    """One function object per maze, so that making a dataset again does not compile again."""
    return functools.partial(pointmaze.physics_step, walls=layouts.walls_of(layout))


def check_meaning(
    name: str, arguments: Arguments, behaviour_file: pathlib.Path | None
) -> catalog.Maze | catalog.Rooms | catalog.Trained | catalog.Scripted | catalog.Game:
    """What the dataset `name` is.

    Raises:
      KeyError: not a name of the catalogue.
      ValueError: an argument that this dataset lacks, would not heed, or cannot.
    """
    known = {**catalog.GENERATED, **catalog.CUSTOM}
    if name not in known:
        raise KeyError(f"unknown dataset {name!r}; {did_you_mean(name, known)}")
    made = known[name]
    if arguments.noise is not None and not 0.0 <= arguments.noise < np.inf:
        raise ValueError(f"{name}: --noise={arguments.noise}; it must be finite and at least 0, usually at most 1.")
    if isinstance(made, catalog.Scripted) and arguments.noise is not None:
        if made.quality == "random":
            raise ValueError(f"{name} has no use for --noise: all its actions are uniform; choose another quality.")
        if arguments.noise > 1.0:
            raise ValueError(f"{name}: --noise={arguments.noise}; it is a chance, at most 1.")
    if name in catalog.CUSTOM and not arguments.maze:
        raise ValueError(rf"{name} needs a maze, its rows parted by backslashes: --maze='#####\#GOO#\#####'")
    usual = Arguments()
    is_trained = isinstance(made, catalog.Trained)
    heedless: tuple[str, ...] = ("noise",) if is_trained else ("backend", "behaviour_seed", "train_steps")
    heedless += () if name in catalog.CUSTOM else ("maze",)
    heedless += ("noise",) if isinstance(made, catalog.Game) else ()
    heedless += () if isinstance(made, catalog.Scripted) and made.env in make_scripted.HUNTS else ("prey",)
    given = [f"--{field}" for field in heedless if getattr(arguments, field) != getattr(usual, field)]
    if not is_trained and behaviour_file is not None:
        given.append("--behaviour")
    if behaviour_file is not None and (arguments.behaviour_seed, arguments.train_steps) != (
        usual.behaviour_seed,
        usual.train_steps,
    ):
        raise ValueError("--behaviour names trained weights; leave --behaviour_seed and --train_steps out.")
    if given:
        raise ValueError(f"{name} has no use for {', '.join(given)}; leave it out.")
    return made


def _provenance(env: Env, settings: PPOSettings) -> str:
    """How a behaviour came about, as JSON: it travels with the weights."""
    facts = {
        "env": env.spec.name,
        "backend": env.facts.get("backend"),
        "algorithm": "brax.training.agents.ppo",
        "device": jax.default_backend(),
        "settings": dataclasses.asdict(settings),
        "versions": cards.versions(),
    }
    return json.dumps(facts, sort_keys=True)


def _on_cpu() -> contextlib.AbstractContextManager[object]:
    """The CPU as default device, where this process has one (JAX_PLATFORMS may leave it out)."""
    try:
        return jax.default_device(jax.devices("cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()


def _key(seed: int, use: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), use)
