"""OMAR's prey out of a pickle: the numbers that PyTorch would read, and nothing that a pickle might ask for."""

import collections
import os
import pickle

import numpy as np
from prey_files import Call, Named, Storage, container, dumped, prey_of, weights
import pytest

from jaxdiff.data.sources import prey_file

OURS = {
    **{"bn_gamma": "in_fn.weight", "bn_beta": "in_fn.bias"},
    **{"bn_mean": "in_fn.running_mean", "bn_var": "in_fn.running_var"},
    **{f"{ours}{k}": f"fc{k}.{theirs}" for k in (1, 2, 3) for ours, theirs in (("w", "weight"), ("b", "bias"))},
}


@pytest.fixture
def save(tmp_path):
    def to_file(content):
        path = tmp_path / "pretrained_adv_model.pt"
        path.write_bytes(content)
        return path

    return to_file


@pytest.mark.parametrize("width", [14, 22])
def test_the_weights_come_back_and_a_stranger_is_named(width, save):
    arrays = weights(width)
    path = save(container(*prey_of(arrays)))
    with pytest.warns(UserWarning, match="not comparable with published ones"):
        params = prey_file.read(path)
    assert set(params) == {*OURS, "published"}
    assert not params["published"]
    for name, stored in OURS.items():
        np.testing.assert_array_equal(params[name], arrays[stored])
        assert params[name].dtype == np.float32


def test_the_expected_bytes_are_taken_without_a_word(save, monkeypatch):
    import hashlib

    content = container(*prey_of(weights(14)))
    known = {"simple_tag": (len(content), hashlib.sha256(content).hexdigest())}
    monkeypatch.setattr(prey_file, "KNOWN", known)
    params = prey_file.read(save(content))
    assert params["w1"].shape == (64, 14) and params["published"]


def make_folder(path):
    """What the malicious pickles below would do."""
    return Call(os.mkdir, str(path))


@pytest.mark.parametrize("place", ["found", "magic", "extra"])
@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (lambda trace: Call(os.system, f"mkdir {trace}"), r"(posix|nt)\.system"),
        (lambda trace: Call(os.mkdir, str(trace)), r"(posix|nt)\.mkdir"),
        (lambda trace: Call(eval, f"__import__('os').mkdir({str(trace)!r})"), r"(builtins|__builtin__)\.eval"),
        (lambda trace: Call(exec, f"import os; os.mkdir({str(trace)!r})"), r"(builtins|__builtin__)\.exec"),
        (lambda trace: Call(getattr, collections.OrderedDict, "fromkeys"), r"(builtins|__builtin__)\.getattr"),
        (lambda trace: Named("torch._utils", "_rebuild_parameter"), r"torch\._utils\._rebuild_parameter"),
        (lambda trace: Named("collections", "OrderedDict.fromkeys"), r"collections\.OrderedDict\.fromkeys"),
    ],
)
def test_a_pickle_that_asks_for_more_is_refused_and_nothing_is_done(attack, name, place, save, tmp_path):
    trace = tmp_path / "trace"
    bad = attack(trace)
    if place == "magic":
        content = dumped(bad)
    else:
        found, storages = prey_of(weights(14), **({"hook": bad} if place == "extra" else {}))
        content = container(bad if place == "found" else found, storages)
    with pytest.raises(ValueError, match=rf"refused, its pickle asks for the global {name}, and a prey needs none but"):
        prey_file.read(save(content))
    assert not trace.exists()


def test_the_attacks_would_work_on_the_ordinary_reader(tmp_path):
    pickle.loads(dumped(Call(os.mkdir, str(tmp_path / "trace"))))
    assert (tmp_path / "trace").exists()


def test_a_pickle_cannot_change_the_stand_ins(save):
    """BUILD, which sets attributes, is turned on each of them."""
    for module, name in prey_file.ALLOWED:
        for state in ((None, {"__call__": 1, "shape": 2}), {"x": 1}):
            attributes = dumped(state)[2:-1]
            head = b"".join(dumped(part) for part in (prey_file.MAGIC, prey_file.PROTOCOL, {"little_endian": True}))
            content = head + b"\x80\x02c" + f"{module}\n{name}\n".encode() + attributes + b"b."
            with pytest.raises(ValueError, match="no file of OMAR's prey, or damaged"):
                prey_file.read(save(content))
    with pytest.warns(UserWarning, match="not comparable"):
        prey_file.read(save(container(*prey_of(weights(14)))))


def without(name):
    arrays = weights(14)
    del arrays[name]
    return container(*prey_of(arrays))


def reaching(too_far):
    found, storages = prey_of(weights(14))
    tensor = found["agent_params"][-1]["policy"]["fc3.bias"]
    tensor.storage = Storage(tensor.storage.key, np.zeros(2 if too_far else 1, np.float32))
    storages[tensor.storage.key] = np.zeros(1, np.float32)
    return container(found, storages)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no file of OMAR's prey, or damaged"),
        (b"nothing of the kind", "no file of OMAR's prey, or damaged"),
        (b"PK\x03\x04 and so on", "a zip archive, as newer PyTorch writes"),
        (b"x" * (16 * 2**20 + 1), "more than 16 MB"),
        (container({}, {}, magic=1), "does not begin with PyTorch's magic number"),
        (container({}, {}, protocol=1000), "its protocol is another"),
        (container({}, {}, little_endian=False), "its machine was big-endian"),
        (container({}, {}), "KeyError: 'agent_params'"),
        (container(*prey_of(weights(14)))[:-10], "cut short in storage"),
        (container(*prey_of(weights(15))), "its network reads 15 numbers, 14 .simple_tag. or 22 .simple_world. are"),
        (container(*prey_of({**weights(14), "fc2.bias": np.zeros(63, np.float32)})), "fc2.bias has another shape"),
        (container(*prey_of({**weights(14), "fc3.bias": np.zeros(2, np.int64)})), "fc3.bias must be finite float32"),
        (container(*prey_of({**weights(14), "fc3.bias": np.full(2, np.nan, np.float32)})), "fc3.bias must be finite"),
        (without("fc1.bias"), "KeyError: 'fc1.bias'"),
        (reaching(True), "fc3.bias reaches beyond its storage"),
        (reaching(False), "fc3.bias reaches beyond its storage"),
    ],
)
def test_other_files_are_told_apart(content, message, save):
    with pytest.raises(ValueError, match=message):
        prey_file.read(save(content))


def test_a_missing_file_is_the_systems_word(tmp_path):
    with pytest.raises(FileNotFoundError):
        prey_file.read(tmp_path / "none.pt")
