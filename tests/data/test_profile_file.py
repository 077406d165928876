"""Networks out of TOML: the same numbers as by hand, and every mistake by its layer."""

import pytest

from jaxdiff.data.sources import profile_file
from jaxdiff.offloading import Layer, Profile, make_profile

SHAPED = """
name = "small"
[[layer]]
name = "conv1"
kind = "conv"
input = [32, 32, 3]
out = 16
kernel = 3
pad = 1
[[layer]]
name = "pool1"
kind = "pool"
input = [32, 32, 16]
out = 16
kernel = 2
stride = 2
free_in_lit = true
[[layer]]
name = "fc"
kind = "fc"
input = [4096]
out = 10
"""
MEASURED = """
name = "measured"
[[layer]]
name = "stem"
data_mb = 0.6
work_gflop = 2
[[layer]]
name = "head"
data_mb = 0.1
work_gflop = 0.5
"""


@pytest.fixture
def save(tmp_path):
    def write(text):
        path = tmp_path / "net.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize("convention", ["lit", "std"])
def test_shapes_are_those_of_layers_written_by_hand(save, convention):
    layers = [
        Layer("conv1", "conv", (32, 32, 3), 16, 3, 1, 1),
        Layer("pool1", "pool", (32, 32, 16), 16, 2, 2, free_in_lit=True),
        Layer("fc", "fc", (4096,), 10),
    ]
    assert profile_file.read(save(SHAPED), convention) == make_profile("small", layers, convention)


def test_measured_numbers_are_taken_as_they_are(save):
    assert profile_file.read(save(MEASURED)) == Profile("measured", ("stem", "head"), (0.6, 0.1), (2, 0.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff\xfe", "net.toml: no TOML"),
        ("\nname = \n", r"no TOML: Invalid value \(at line 2"),
        ("x" * (2**20 + 1), "more than 1 MB"),
        (SHAPED + "\n[other]\n", "unknown key 'other'; .*layer, name"),
        (SHAPED.replace('name = "small"', ""), "no name of the network"),
        ('name = "x"', r"no layers; write one \[\[layer\]\]"),
        ('name = "x"\nlayer = [1]', "no layers"),
        (SHAPED.replace("kernel = 2", "kernal = 2"), "layer 2 'pool1': unknown key 'kernal'; did you mean 'kernel'"),
        (SHAPED.replace("out = 10", ""), "layer 3 'fc': no out; it needs name, kind, input, out"),
        (SHAPED.replace("out = 10", "out = 10.0"), "layer 3 'fc': out=10.0; .*are whole numbers"),
        (SHAPED.replace("[4096]", "4096"), "layer 3 'fc': input=4096; .*input is a list"),
        (SHAPED.replace("[4096]", "[4097]"), "net.toml: layer 3 'fc' takes 4097 numbers and layer 2 'pool1' puts"),
        (SHAPED.replace('kind = "fc"', 'kind = "cf"'), "layer 3 'fc': unknown kind 'cf'; .*block, conv"),
        (SHAPED + "data_mb = 1.0", "layer 3 'fc': unknown key 'data_mb' .a file has layers with shapes or with"),
        (MEASURED.replace("work_gflop = 2", ""), "layer 1 'stem': no work_gflop"),
        (MEASURED.replace("= 0.1", "= true"), "layer 2 'head': data_mb=True"),
        (MEASURED.replace("= 0.1", "= -0.1"), "data_mb=.* must be finite and above 0"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_layer(save, text, message):
    with pytest.raises(ValueError, match=message):
        profile_file.read(save(text))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        profile_file.read(tmp_path / "none.toml")
