"""TPU VMs: the line that gcloud is given, and giving it again."""

import os
from pathlib import Path
import shlex
import subprocess

import pytest

from launch.main import main

PLACE = ["--name=slice", "--zone=us-east5-a"]


def shown(capsys, *argv):
    assert main(["tpu_vm", *argv, *PLACE, "--dry_run"]) == 0
    words = shlex.split(capsys.readouterr().out)
    start = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "slice", "--zone=us-east5-a"]
    assert words[: len(start)] == start
    assert "--worker=all" in words
    return words[-1].removeprefix("--command=")


def test_one_program_over_the_slice(capsys):
    assert shown(capsys, "gs://b/s", "--distributed", "--hosts=4") == "jaxdiff work gs://b/s --distributed"


def test_one_host_takes_the_whole_list(capsys):
    assert shown(capsys, "/runs/my study") == "jaxdiff work '/runs/my study'"


@pytest.mark.parametrize("given", ["", "3"])
def test_each_host_finds_its_own_shard(capsys, tmp_path, given):
    line = shown(capsys, "/runs/s", "--hosts=4", "--setup=cd /", "--env=A=b c", "--worker=tell work")
    for name, text in {"curl": "echo 2", "tell": 'echo "$A $PWD $@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TPU_WORKER_ID": given}
    said = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, env=environment).stdout
    assert said == f"b c / work /runs/s --shard={given or 2}/4\n"


@pytest.mark.parametrize(
    ("codes", "retries", "code", "calls"), [("1 75 0", 5, 0, 3), ("2 0", 5, 2, 1), ("9 9", 1, 1, 2)]
)
def test_the_command_is_given_again(monkeypatch, tmp_path, codes, retries, code, calls):
    codes_left = tmp_path / "codes"
    codes_left.write_text("\n".join(codes.split()) + "\n")
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(
        f"#!/bin/sh\ncode=$(head -n1 {codes_left})\nsed -i 1d {codes_left}\necho >> {tmp_path}/calls\nexit $code\n"
    )
    gcloud.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert main(["tpu_vm", "/runs/s", *PLACE, f"--retries={retries}", "--pause=0"]) == code
    assert len(Path(tmp_path, "calls").read_text().splitlines()) == calls


def test_without_gcloud_the_error_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="no gcloud here"):
        main(["tpu_vm", "/runs/s", *PLACE])
