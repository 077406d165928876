import csv
import dataclasses
from html.parser import HTMLParser
import json
import re
import shutil

import numpy as np
import pytest
from scipy import stats

from jaxdiff.cli import report as command
from jaxdiff.io.report import answer, build_report, results, summary
from jaxdiff.io.runs import load_run

VOID = {"meta", "br", "hr", "input"}


class Reader(HTMLParser):
    """Collects elements and checks that each is closed by its own end tag."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.text, self.errors = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.errors.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    return reader


def last_scores(folder, pack, label):
    """One number per finished, finite seed, straight from the files."""
    plan = json.loads((folder / "packs" / pack / "pack.json").read_text())
    failed = {e["member"] for e in json.loads((folder / "packs" / pack / "done.json").read_text())["nonfinite"]}
    scores = np.load(folder / "packs" / pack / "eval.npz")["scores"].astype(np.float64)
    lanes = [i for i, m in enumerate(plan["members"]) if m["label"] == label and m["id"] not in failed]
    return scores[:, lanes].mean(axis=2)  # [T, S]


def test_page_is_well_formed_and_names_every_setting(run_folder):
    reader = read(build_report(run_folder))
    assert not reader.errors and not reader.open
    text = " ".join(reader.text)
    for label in ("bc", "diffusion_ql q_weight=0.1", "diffusion_ql q_weight=10", "edp q_weight=1"):
        assert label in text
    anchors = {attrs["id"] for tag, attrs in reader.elements if tag == "section"}
    assert anchors == {"final", "curves", "sensitivity", "improvement", "rollouts", "training", "cost", "repeat"}


def test_page_loads_nothing_from_elsewhere(run_folder):
    page = build_report(run_folder)
    content = page.read_text()
    assert "http://" not in content and "https://" not in content
    assert "url(" not in content and "@import" not in content
    sources = [attrs for _, attrs in read(page).elements if {"src", "href", "srcset"} & set(attrs)]
    assert not sources


def test_what_the_user_named_is_escaped_everywhere(tmp_path, make_folder):
    hostile = "<script>alert('x')</script>&\"'"
    folder = make_folder(tmp_path / "run", label_suffix=hostile, env=hostile)
    content = build_report(folder).read_text()
    assert content.count("<script>") == 1  # the page's own
    assert "<script>alert" not in content
    reader = read(folder / "report.html")
    assert not reader.errors and not reader.open
    assert f"bc{hostile}" in reader.text
    assert hostile in reader.text  # the environment


def test_table_holds_the_statistics_of_the_files(run_folder):
    build_report(run_folder)
    table = {row["label"]: row for row in json.loads((run_folder / "report.json").read_text())["settings"]}
    text = re.sub(r"\s+", " ", " ".join(read(run_folder / "report.html").text))
    for pack, label in [("p1-dql", "diffusion_ql q_weight=1"), ("p2-edp", "edp q_weight=10"), ("p0-bc", "bc")]:
        scores = last_scores(run_folder, pack, label)
        row = table[label]
        assert row["seeds"] == scores.shape[1]
        assert row["last_mean"] == pytest.approx(scores[-1].mean())
        assert row["last_iqm"] == pytest.approx(stats.trim_mean(scores[-1], 0.25))
        assert row["last_iqm_low"] <= row["last_iqm"] <= row["last_iqm_high"]
        assert scores[-1].min() - 1e-9 <= row["last_iqm_low"] and row["last_iqm_high"] <= scores[-1].max() + 1e-9
        assert row["best_iqm"] == pytest.approx(stats.trim_mean(scores.max(axis=0), 0.25))
        assert row["running_iqm"] == pytest.approx(stats.trim_mean(scores[-10:].mean(axis=0), 0.25))
        assert sorted(row["last_scores"].values()) == pytest.approx(sorted(scores[-1]))
        interval = f"{row['last_iqm_low']:.1f} to {row['last_iqm_high']:.1f}"
        assert f"{row['last_mean']:.1f} {row['last_iqm']:.1f} {interval}" in text


def test_settings_come_by_last_checkpoint_and_unfinished_ones_after(run_folder):
    found = results.collect(load_run(run_folder))
    complete = [setting for setting in found.settings if not setting.provisional]
    iqms = [setting.last.iqm for setting in complete]
    assert iqms == sorted(iqms, reverse=True)
    assert found.best.label == "diffusion_ql q_weight=1"
    assert found.baseline.label == "bc"
    assert [s.label for s in found.settings[len(complete) :]] == ["diffusion_ql q_weight=10"]
    assert found.settings[-1].last_step == 4000


def test_the_baseline_is_what_learned_no_values_whatever_it_is_called(run_folder):
    """td3_bc has the imitation in its name and a critic in its metrics."""
    for pack, name in (("p0-bc", "cloning"), ("p2-edp", "td3_bc")):
        path = run_folder / "packs" / pack / "pack.json"
        plan = json.loads(path.read_text())
        for member in plan["members"]:
            member["algorithm"], member["label"] = name, member["label"].replace(member["algorithm"], name)
        path.write_text(json.dumps(plan))
    assert results.collect(load_run(run_folder)).baseline.label == "cloning"


def test_failures_and_unfinished_packs_are_shown(run_folder):
    text = " ".join(read(build_report(run_folder)).text)
    plan = json.loads((run_folder / "packs" / "p2-edp" / "pack.json").read_text())
    failed = next(m for m in plan["members"] if m["label"] == "edp q_weight=10" and m["seed"] == 2)
    assert failed["id"] in text and "4,500" in text
    assert "4,300 of 10,000" in text and "p3-dql" in text
    assert "1 of 28 members became non-finite" in text
    assert "1 of 4 packs is unfinished" in text


def test_a_failed_member_counts_in_no_score(run_folder):
    setting = next(s for s in results.collect(load_run(run_folder)).settings if s.label == "edp q_weight=10")
    failed = next(result for result in setting.members if result.status == "non-finite")
    assert failed.member.seed == 2 and failed.steps.max() == 4000
    assert len(setting.last.scores) == 3 and setting.num_nonfinite == 1


def test_dataset_mean_is_in_the_tables_unit(run_folder, tmp_path, make_folder):
    assert results.collect(load_run(run_folder)).dataset_mean == pytest.approx(100 * (120 - 13.13) / (277.39 - 13.13))
    plain = results.collect(load_run(make_folder(tmp_path / "returns", scores=False)))
    assert plain.dataset_mean == 120.0
    stamp = json.loads((run_folder / "run.json").read_text())
    stamp["dataset"]["reference_scores"] = None  # as a run has it whose data are of another world
    elsewhere = dataclasses.replace(load_run(run_folder), stamp=stamp)
    assert results.collect(elsewhere).dataset_mean is None
    assert "own mean" in " ".join(answer.answer(results.collect(load_run(run_folder))))
    assert "own mean" not in " ".join(answer.answer(results.collect(elsewhere)))
    assert plain.quantity_name == "return"


def test_terminal_summary_has_the_pages_numbers(run_folder):
    build_report(run_folder)
    lines = summary(load_run(run_folder)).splitlines()
    with open(run_folder / "report.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7
    for row, line in zip(rows, lines[1:], strict=False):
        assert row["label"] in line
        assert f"{float(row['last_iqm']):.1f}" in line.split()
    assert lines[0].startswith("#") and "Best of 7 settings: diffusion_ql q_weight=1" in "\n".join(lines)


@pytest.mark.parametrize("what", ["no packs", "no evaluation", "one seed", "damaged", "no facts"])
def test_a_poorer_folder_still_gives_a_page(run_folder, what):
    packs = run_folder / "packs"
    if what == "no packs":
        shutil.rmtree(packs)
    for pack in packs.glob("*") if what != "no packs" else ():
        if what == "no evaluation":
            (pack / "eval.npz").unlink()
        elif what == "damaged":
            (pack / "train.npz").write_bytes(b"PK cut short")
        elif what == "one seed":
            _keep_first_seed(pack)
    if what == "no facts":
        (run_folder / "facts.json").unlink()
    reader = read(build_report(run_folder))
    text = " ".join(reader.text)
    assert not reader.errors and not reader.open
    expected = {
        "no packs": "There is no answer yet",
        "no evaluation": "There is no answer yet",
        "one seed": "one seed cannot say",
        "damaged": "Files that could not be read",
        "no facts": "Final scores",
    }
    assert expected[what] in text
    assert summary(load_run(run_folder)).endswith("\n")


def _keep_first_seed(pack):
    plan = json.loads((pack / "pack.json").read_text())
    lanes = [i for i, member in enumerate(plan["members"]) if member["seed"] == 0]
    plan["members"] = [plan["members"][i] for i in lanes]
    (pack / "pack.json").write_text(json.dumps(plan))
    for name in ("eval", "train"):
        columns = dict(np.load(pack / f"{name}.npz"))
        kept = {k: v if k in ("step", "wall_seconds") else v[:, lanes] for k, v in columns.items()}
        np.savez(pack / f"{name}.npz", **kept)


def test_many_settings_stay_readable(tmp_path, make_folder):
    folder = make_folder(tmp_path / "run")
    for copy in range(3):
        for pack in ("p1-dql", "p2-edp"):
            target = folder / "packs" / f"{pack}-{copy}"
            shutil.copytree(folder / "packs" / pack, target)
            plan = json.loads((target / "pack.json").read_text())
            for member in plan["members"]:
                member["label"] += f" lr={copy}"
                member["overrides"]["hparams.lr"] = copy
            (target / "pack.json").write_text(json.dumps(plan))
    reader = read(build_report(folder))
    assert not reader.errors
    colours = {attrs["class"] for tag, attrs in reader.elements if tag == "button" and "data-toggle" in attrs}
    assert colours == {f"c{i}" for i in range(8)} | {"other"}
    assert "combinations of the other keys pooled" in " ".join(reader.text)


def test_command_writes_the_page_and_prints_the_table(run_folder, capsys):
    assert command.main([str(run_folder)]) == 0
    printed = capsys.readouterr().out
    assert "Best of 7 settings" in printed and str(run_folder / "report.html") in printed
    assert command.main(["--help"]) == 0
    assert "--[no]open" in capsys.readouterr().out


def test_command_refuses_what_is_not_a_run_folder(tmp_path):
    with pytest.raises(ValueError, match="not a run folder"):
        command.main([str(tmp_path)])
    with pytest.raises(ValueError, match="no run folder was named"):
        command.main([])
