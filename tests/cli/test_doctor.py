"""`jaxdiff doctor`: known-bad combinations and the lines that mend them."""

import functools
import sys

import pytest

from jaxdiff.cli import doctor

GOOD = {
    "jax": "0.10.2", "jaxlib": "0.10.2", "flax": "0.12.8", "optax": "0.2.8", "orbax-checkpoint": "0.12.8",
    "distrax": "0.1.9", "brax": "0.14.2", "mujoco": "3.17.0", "mujoco-mjx": "3.17.0", "jumanji": "1.1.2",
    "tfp-nightly": "0.26.0.dev20261027",
}  # fmt: skip


@pytest.mark.parametrize("jax", ["0.10.2", "0.11.2", "0.12.0.1"])
@pytest.mark.parametrize("python", [(3, 11, 7), (3, 12, 1), (3, 13, 0)])
def test_tested_versions_have_no_problem(jax, python):
    assert doctor.known_problems({**GOOD, "jax": jax, "jaxlib": jax}, python) == []


@pytest.mark.parametrize(
    ("change", "python", "subject", "mends"),
    [
        ({}, (3, 10, 4), "python", "3.12"),
        ({}, (3, 14, 0), "python", "3.12"),
        ({"jax": "0.9.2"}, (3, 11, 7), "jax", "'jax>=0.10.2,<0.13'"),
        ({"jax": "0.13.0"}, (3, 12, 1), "jax", "'jax>=0.10.2,<0.13'"),
        ({"jaxlib": "0.11.2"}, (3, 12, 1), "jaxlib", "'jaxlib==0.10.2'"),
        ({"mujoco": "4.0.0"}, (3, 11, 7), "mujoco", "'mujoco>=3.8.1,<4'"),
        ({"tensorflow-probability": "0.25.0"}, (3, 11, 7), "tfp-nightly", "uninstall tensorflow-probability"),
    ],
)
def test_bad_combination_is_named_with_the_line_that_mends_it(change, python, subject, mends):
    [(found, text)] = doctor.known_problems({**GOOD, **change}, python)
    assert found == subject
    assert mends in text


def test_missing_jax_is_a_problem():
    [(subject, text)] = doctor.known_problems({k: v for k, v in GOOD.items() if not k.startswith("jax")}, (3, 11, 7))
    assert (subject, "missing" in text) == ("jax", True)


def test_examination_prints_devices_and_exit_code_follows_fail(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(doctor, "_installed", lambda: dict(GOOD))
    monkeypatch.setattr(doctor.config_files, "shipped", lambda: {"bandit": tmp_path / "bandit.py"})
    monkeypatch.setenv("JAXDIFF_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(doctor, "_speed", functools.partial(doctor._speed, 128, 0.01))
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    assert "GFLOP/s" in text
    assert "(cpu)" in text
    assert "can run here." in text
    monkeypatch.setattr(doctor, "_installed", lambda: {**GOOD, "mujoco": "4.0.0"})
    assert doctor.main([]) == 1
    assert "cannot run here" in capsys.readouterr().out


def test_folder_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    finding = doctor._writable("data folder", tmp_path / "file" / "data", "JAXDIFF_DATA")
    assert finding.status == "FAIL"
    assert "set JAXDIFF_DATA" in finding.text
    assert doctor._writable("data folder", tmp_path / "new", "JAXDIFF_DATA").status == "ok"
    assert not (tmp_path / "new").exists()


def test_missing_extra_comes_with_its_install_line(monkeypatch):
    monkeypatch.setattr(doctor, "_installed", lambda: dict(GOOD))
    [finding] = [finding for finding in doctor._extras(GOOD) if finding.subject == "extra wandb"]
    assert finding.text.endswith(f"{sys.executable} -m pip install 'jaxdiff[wandb]'")


def test_extra_that_older_metadata_lack_is_still_named(monkeypatch):
    monkeypatch.setattr(doctor, "_installed", lambda: {**GOOD, "jaxdiff": "0.1.0"})
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: ["wandb>=0.30; extra == 'wandb'"])
    lines = {finding.subject: finding.text for finding in doctor._extras(GOOD)}
    assert lines["extra wandb"].endswith("pip install 'wandb>=0.30'")
    assert lines["extra bench"].endswith("pip install 'jaxdiff[bench]'")
