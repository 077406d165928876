"""`jaxdiff data make mpe-... --prey=FILE`: whose prey flees, what the card says of it, and what is refused."""

import jax
import numpy as np
from prey_files import container, prey_of, weights
import pytest

from jaxdiff import envs
from jaxdiff.cli.main import main
from jaxdiff.cli.settings import base_config
from jaxdiff.cli.task import make_env
from jaxdiff.data import catalog, load
from jaxdiff.data.card import file_sha256, read_card
from jaxdiff.data.sources import prey_file
from jaxdiff.envs import mpe


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDIFF_DATA", str(tmp_path / "root"))
    return tmp_path / "root"


@pytest.fixture
def prey(tmp_path):
    path, arrays = tmp_path / "prey.pt", weights(14)
    arrays["in_fn.running_var"] = np.abs(arrays["in_fn.running_var"])
    path.write_bytes(container(*prey_of(arrays)))
    return path


def expect(prey, monkeypatch):
    """Makes the file the one that published scores are about."""
    known = {"simple_tag": (prey.stat().st_size, file_sha256(prey))}
    monkeypatch.setattr(prey_file, "KNOWN", known)


def test_the_prey_of_the_file_flees_and_the_card_names_it(root, prey, monkeypatch):
    expect(prey, monkeypatch)
    assert main(["data", "make", "mpe-tag-expert", "--steps=50", f"--prey={prey}"]) == 0
    sha256 = file_sha256(prey)
    name = f"mpe-tag-expert-steps50-prey{sha256[:8]}"
    assert [path.stem for path in root.glob("*.hdf5")] == [name]
    card = read_card(catalog.resolve(name))
    assert {"prey": "network", "prey_file": "prey.pt", "prey_sha256": sha256}.items() <= card.arguments.items()
    assert f"against the prey in prey.pt (sha256 {sha256[:12]}...)" in card.generator
    assert (card.env, card.reference_scores) == ("mpe-tag", mpe.OMAR_SCORES["tag"])
    # The observations tell the whole state: the prey does in the data what the network answers there.
    rows = load(catalog.resolve(name))[0].transitions
    env = envs.make("mpe-tag", prey=mpe.prey_network(prey_file.read(prey)))

    @jax.jit
    @jax.vmap
    def step(obs, action):
        here = obs[:1, 2:4]
        position = jax.numpy.concatenate([here, here + obs[0, 8:14].reshape(3, 2)])
        velocity = jax.numpy.concatenate([obs[:, :2], obs[:1, 14:16]])
        landmarks = here + obs[0, 4:8].reshape(2, 2)
        return env.step(mpe.MPEState(position, velocity, landmarks, jax.numpy.int32(0)), action)[1].obs

    found = np.asarray(step(rows.obs, rows.action))
    np.testing.assert_allclose(found[:, :, 14:16], rows.next_obs[:, :, 14:16], atol=1e-3)


def test_a_prey_that_nobody_published_has_no_scores(tmp_path, prey, capsys):
    path = tmp_path / "own.hdf5"
    assert main(["data", "make", "mpe-tag-expert", "--steps=50", f"--prey={prey}", f"--out={path}"]) == 0
    assert read_card(path).reference_scores is None
    assert read_card(path).normalised_score is None
    config = base_config("bc").to_dict()
    env = make_env({**config, "env": "mpe-tag", "mpe": {**config["mpe"], "prey": str(prey)}})
    assert (env.spec.name, env.spec.reference_scores, env.facts["prey"]) == ("mpe-tag-network", None, "network")
    (line,) = capsys.readouterr().err.splitlines()  # said once, however often the file is read
    assert line.startswith(f"jaxdiff: warning: {prey}: ") and "with this prey there are no reference scores" in line


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["mpe-spread-medium", "--prey=none.pt"], "mpe-spread-medium has no use for --prey"),
        (["pointmaze-umaze", "--prey=none.pt"], "pointmaze-umaze has no use for --prey"),
        (["mpe-tag-medium", "--prey=none.pt"], "none.pt: No such file"),
        (["mpe-tag-medium", "--prey=none.pt", "--out=new.hdf5"], "none.pt: No such file"),
        (["mpe-tag-medium", "--prey=BAD"], "no file of OMAR's prey, or damaged"),
        (["mpe-world-medium", "--prey=PREY"], "the prey of mpe-world sees 22 numbers and the given one reads 14"),
    ],
)
def test_a_bad_request_writes_nothing(argv, message, root, prey, tmp_path, monkeypatch, capsys):
    expect(prey, monkeypatch)
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"nothing of the kind")
    before = sorted(tmp_path.rglob("*"))
    words = [word.replace("PREY", str(prey)).replace("BAD", str(bad)) for word in argv]
    assert main(["data", "make", "--steps=50", *words]) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
