import pytest

from jaxdiff.suggest import did_you_mean, unknown_name


def test_the_nearest_name_is_offered_and_all_are_listed_in_order():
    assert did_you_mean("swep", ["sweep", "bench", "data"]) == "did you mean 'sweep'? known: bench, data, sweep."


def test_nothing_is_offered_when_nothing_is_near():
    assert did_you_mean("qqq", iter(["sweep"])) == "known: sweep."
    assert did_you_mean("qqq", []) == "known: none."


def test_the_error_says_what_was_asked_for():
    with pytest.raises(KeyError, match=r"unknown sampler 'ddmp'; did you mean 'ddpm'\? known: ddim, ddpm\."):
        raise unknown_name("sampler", "ddmp", ["ddpm", "ddim"])


def test_of_very_many_names_the_nearest_are_listed():
    message = did_you_mean("name7x", [f"name{i}" for i in range(100)])
    assert message.startswith("did you mean 'name7'? known, of 100 the nearest: ")
    assert message.count(",") == 10
