"""Sizes and works of layers against tables computed outside, in FLOPs."""

import dataclasses

import numpy as np
import pytest

from jaxdiff.offloading import ARCHITECTURES, Layer, Profile, make_profile, standard_profiles

TOTALS = {  # depth, lit, std
    "alexnet": (11, 4533067928, 1430132632),
    "resnet18": (12, 5504176152, 3634944536),
    "vgg16": (21, 37967567896, 30973735960),
}
ROWS = [  # network, layer, megabytes of its input, lit, std
    ("alexnet", "conv1", 0.602112, 2337800192, 140940800),
    ("alexnet", "pool1", 0.7744, 223414400, 419904),
    ("alexnet", "conv2", 0.186624, 448177536, 448177536),
    ("alexnet", "pool5", 0.173056, 199447040, 82944),
    ("alexnet", "fc6", 0.036864, 75493376, 75493376),
    ("resnet18", "maxpool", 3.211264, 0, 1806336),
    ("resnet18", "block1_2", 0.802816, 463224832, 463224832),
    ("resnet18", "block2_1", 0.802816, 746819584, 360263680),
    ("resnet18", "block4_1", 0.200704, 745464832, 359812096),
    ("resnet18", "avgpool", 0.100352, 0, 25088),
    ("resnet18", "fc", 0.002048, 1023000, 1023000),
    ("vgg16", "conv1_2", 12.845056, 3705798656, 3705798656),
    ("vgg16", "pool3", 3.211264, 1645772800, 802816),
    ("vgg16", "conv5_1", 0.401408, 925044736, 925044736),
    ("vgg16", "fc6", 0.100352, 205516800, 205516800),
]


@pytest.mark.parametrize("name", TOTALS)
def test_networks_have_the_tabulated_depth_and_total_work(name):
    depth, lit, std = TOTALS[name]
    for convention, total in (("lit", lit), ("std", std)):
        profile = make_profile(name, ARCHITECTURES[name], convention)
        assert profile.depth == depth
        np.testing.assert_allclose(sum(profile.work_gflop), total / 1e9, rtol=1e-12)


@pytest.mark.parametrize(("name", "layer", "data", "lit", "std"), ROWS)
def test_a_layer_has_its_tabulated_size_and_work(name, layer, data, lit, std):
    for convention, work in (("lit", lit), ("std", std)):
        profile = make_profile(name, ARCHITECTURES[name], convention)
        index = profile.layers.index(layer)
        np.testing.assert_allclose(profile.data_mb[index], data, rtol=1e-12)
        np.testing.assert_allclose(profile.work_gflop[index], work / 1e9, rtol=1e-12)


def test_poolings_of_resnet18_count_literally_once_they_are_not_free():
    layers = [dataclasses.replace(layer, free_in_lit=False) for layer in ARCHITECTURES["resnet18"]]
    np.testing.assert_allclose(sum(make_profile("r", layers).work_gflop), 7.689491480, rtol=1e-12)


def test_standard_profiles_are_the_three_networks_in_order():
    assert [profile.name for profile in standard_profiles("std")] == ["alexnet", "resnet18", "vgg16"]


def test_a_block_that_changes_channels_alone_is_projected_too():
    wider = make_profile("b", [Layer("b", "block", (8, 8, 4), 6)]).work_gflop[0]
    same = make_profile("b", [Layer("b", "block", (8, 8, 4), 4)]).work_gflop[0]
    np.testing.assert_allclose(wider * 1e9, 2 * 64 * (37 * 6 + 55 * 6 + 5 * 6), rtol=1e-12)
    np.testing.assert_allclose(same * 1e9, 2 * 64 * (37 * 4 + 37 * 4), rtol=1e-12)


def test_a_missing_layer_is_named_by_its_neighbours():
    layers = [layer for layer in ARCHITECTURES["alexnet"] if layer.name != "pool5"]
    with pytest.raises(ValueError, match=r"layer 8 'fc6' takes 9216 numbers and layer 7 'conv5' puts out 43264"):
        make_profile("alexnet", layers)
    layers = [layer for layer in ARCHITECTURES["vgg16"] if layer.name != "pool1"]
    with pytest.raises(ValueError, match="takes 112 x 112 x 64 numbers .* puts out 224 x 224 x 64"):
        make_profile("vgg16", layers)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Layer("a", "conv", (8, 8), 4, 3), r"must be \(height, width, channels\)"),
        (Layer("a", "fc", (8, 8, 3), 4), r"must be \(numbers,\)"),
        (Layer("a", "conv", (8, 0, 3), 4, 3), "at least 1"),
        (Layer("a", "conv", (8, 8, 3), 4), "kernel=0"),
        (Layer("a", "fc", (8.0,), 4), "whole numbers"),
        (Layer("a", "conv", (8, 8, 3), 4, 3, pad=-1), "pad=-1"),
        (Layer("a", "pool", (8, 8, 3), 4, 2, 2), "keeps its 3 channels"),
        (Layer("a", "conv", (4, 4, 3), 4, 9), "window of 9 does not fit"),
        (Layer("a", "block", (8, 8, 3), 4, 5), "3x3 with pad 1"),
    ],
)
def test_layers_that_cannot_be_are_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        make_profile("x", [layer])


def test_unknown_kinds_and_conventions_are_refused():
    with pytest.raises(KeyError, match="'cnv'; did you mean 'conv'"):
        make_profile("x", [Layer("a", "cnv", (8, 8, 3), 4, 3)])
    with pytest.raises(KeyError, match="unknown convention of counting 'literal'"):
        make_profile("x", ARCHITECTURES["alexnet"], "literal")


@pytest.mark.parametrize(
    ("data", "work", "message"),
    [
        ((1.0,), (1.0, 2.0), "2 layers, 1 sizes and 2 works"),
        ((1.0, 0.0), (1.0, 2.0), "above 0"),
        ((1.0, 1.0), (-1.0, 2.0), "at least 0"),
        ((1.0, 1.0), (0.0, 0.0), "not 0 altogether"),
        ((1.0, 1.0), (float("inf"), 0.0), "finite"),
    ],
)
def test_profiles_of_impossible_numbers_are_refused(data, work, message):
    with pytest.raises(ValueError, match=message):
        Profile("x", ("a", "b"), data, work)


def test_a_network_without_layers_is_refused():
    with pytest.raises(ValueError, match="at least one layer"):
        make_profile("x", [])
