"""Long tables of a study for other programs, against the files they are made of."""

import csv
import io
import json
from pathlib import Path
import sys
import types
from typing import Any

import numpy as np
import pytest

from jaxdiff.cli import report as command
from jaxdiff.cli import watching
from jaxdiff.io.report import build_report, export
from jaxdiff.io.report.results import collect
from jaxdiff.io.runs import load_run


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def on_disk(folder: Path, pack: str, name: str) -> np.ndarray:
    """Means over episodes [T, L]."""
    return np.load(folder / "packs" / pack / "eval.npz")[name].astype(np.float64).mean(axis=2)


def plan_of(folder: Path, pack: str) -> dict[str, Any]:
    return json.loads((folder / "packs" / pack / "pack.json").read_text())


def set_override(folder: Path, pack: str, key: str, values: list[Any]) -> None:
    """Sets a swept key of the first members of a pack."""
    plan = plan_of(folder, pack)
    for member, value in zip(plan["members"], values, strict=False):
        member["overrides"][key] = value
    (folder / "packs" / pack / "pack.json").write_text(json.dumps(plan))


def test_members_have_the_numbers_of_the_files(run_folder):
    paths = export.export(run_folder, ["csv"])
    assert [path.name for path in paths] == ["members.csv", "curves.csv"]
    rows = {row["id"]: row for row in read(run_folder / "members.csv")}
    assert len(rows) == 28
    for pack in ("p0-bc", "p1-dql", "p3-dql"):
        for name in ("score", "return"):
            means = on_disk(run_folder, pack, f"{name}s")
            for lane, member in enumerate(plan_of(run_folder, pack)["members"]):
                row = rows[member["id"]]
                assert float(row[f"last_{name}"]) == pytest.approx(means[-1, lane])
                assert float(row[f"best_{name}"]) == pytest.approx(means[:, lane].max())
                assert float(row[f"running_{name}"]) == pytest.approx(means[-10:, lane].mean())
                assert (row["label"], row["algorithm"], row["pack"]) == (member["label"], member["algorithm"], pack)
                assert row["hparams.q_weight"] == str(member["overrides"].get("hparams.q_weight", ""))
                assert int(row["seed"]) == member["seed"]
    assert {row["status"] for row in rows.values() if row["pack"] == "p3-dql"} == {"unfinished"}
    assert {row["step"] for row in rows.values() if row["pack"] == "p3-dql"} == {"4000"}


def test_a_failed_member_ends_where_it_failed_and_its_curve_goes_on(run_folder):
    export.export(run_folder, ["csv"])
    [failed] = [row for row in read(run_folder / "members.csv") if row["status"] == "non-finite"]
    assert (failed["step"], failed["failed_at"], failed["seed"]) == ("4000", "4500", "2")
    lane = [member["id"] for member in plan_of(run_folder, "p2-edp")["members"]].index(failed["id"])
    scores = on_disk(run_folder, "p2-edp", "scores")[:, lane]
    assert float(failed["last_score"]) == pytest.approx(scores[4])
    curve = [float(row["score"]) for row in read(run_folder / "curves.csv") if row["id"] == failed["id"]]
    np.testing.assert_allclose(curve, scores)


def test_curves_have_a_row_per_member_and_evaluation(run_folder):
    export.export(run_folder, ["csv"])
    rows = read(run_folder / "curves.csv")
    assert list(rows[0]) == ["id", "step", "wall_seconds", "score", "return"]
    assert len(rows) == 11 * 24 + 5 * 4
    for row in rows:
        assert float(row["wall_seconds"]) == int(row["step"]) / 50


def test_numbers_that_are_not_finite_survive_and_missing_ones_are_empty(run_folder):
    path = run_folder / "packs" / "p0-bc" / "eval.npz"
    table = dict(np.load(path))
    table["returns"][2:4, 0], table["returns"][4, 1] = [[np.nan], [-np.inf]], np.inf
    del table["scores"]
    np.savez(path, **table)
    set_override(run_folder, "p0-bc", "hparams.max_grad_norm", [float("inf"), float("nan"), [1, 2]])
    export.export(run_folder, ["csv"])
    first, second, third = [member["id"] for member in plan_of(run_folder, "p0-bc")["members"]][:3]
    curves = {(row["id"], row["step"]): row for row in read(run_folder / "curves.csv")}
    assert [curves[first, step]["return"] for step in ("2000", "3000")] == ["nan", "-inf"]
    assert curves[second, "4000"]["return"] == "inf"
    assert curves[first, "2000"]["score"] == ""
    members = {row["id"]: row for row in read(run_folder / "members.csv")}
    assert [members[i]["hparams.max_grad_norm"] for i in (first, second, third)] == ["inf", "nan", "[1, 2]"]
    assert members[first]["last_score"] == "" and np.isfinite(float(members[first]["last_return"]))


def test_a_run_without_scores_has_no_columns_of_them(tmp_path, make_folder):
    folder = make_folder(tmp_path / "run", scores=False)
    export.export(folder, ["csv"])
    assert list(read(folder / "curves.csv")[0]) == ["id", "step", "wall_seconds", "return"]
    assert not [name for name in read(folder / "members.csv")[0] if name.endswith("score")]


def test_a_swept_key_called_like_a_column_keeps_both(run_folder):
    set_override(run_folder, "p0-bc", "label", ["mine"])
    table = export.members(load_run(run_folder))
    assert table["label"][0] == "bc" and table["config.label"][0] == "mine"


def test_latex_rows_are_those_of_the_report_best_first(run_folder):
    [path] = export.export(run_folder, ["latex"])
    assert path.name == "settings.tex"
    text = path.read_text()
    rows = [line.strip().removesuffix(r" \\").split(" & ") for line in text.splitlines() if line.endswith(r" \\")][1:]
    found = collect(load_run(run_folder)).settings
    assert len(rows) == len(found) == 7
    for (label, seeds, iqm, interval), setting in zip(rows, found, strict=True):
        assert label.startswith(setting.label.replace("_", r"\_"))
        assert int(seeds) == len(setting.counted)
        assert iqm == f"${setting.last.iqm:.1f}$"
        assert interval == f"${setting.last.interval.low:.1f}$ to ${setting.last.interval.high:.1f}$"
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"):
        assert text.count(rule) == 1


def test_latex_shows_small_returns_with_more_digits(tmp_path, make_folder):
    folder = make_folder(tmp_path / "run", scores=False)
    for path in (folder / "packs").glob("*/eval.npz"):
        table = dict(np.load(path))
        np.savez(path, **{**table, "returns": table["returns"] / 1000})
    best = collect(load_run(folder)).settings[0].last.iqm
    assert best < 1 and f"${best:.3f}$" in export.as_latex(collect(load_run(folder)))


@pytest.mark.parametrize(
    ("text", "set_as"),
    [
        (r"a\b", r"a\textbackslash{}b"),
        ("{50% & $x_1$}", r"\{50\% \& \$x\_1\$\}"),
        ("#1 ~ x^2", r"\#1 \textasciitilde{} x\textasciicircum{}2"),
        ("a<b>c|d", r"a\textless{}b\textgreater{}c\textbar{}d"),
        ("[4, 4]\nnext", "{[}4, 4{]} next"),
    ],
)
def test_labels_are_escaped_for_latex(text, set_as):
    assert export.escape(text) == set_as


def test_missing_pyarrow_is_named_with_its_install_line_before_anything_is_written(run_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'run: pip install "jaxdiff\[export\]"'):
        command.main([str(run_folder), "--export=csv,parquet"])
    assert not (run_folder / "members.csv").exists() and not (run_folder / "report.html").exists()


def test_unknown_format_is_refused_by_name(run_folder):
    with pytest.raises(KeyError, match="unknown export format 'paquet'; did you mean 'parquet'"):
        export.export(run_folder, ["paquet"])


def test_parquet_columns_have_the_narrowest_type_that_takes_their_values(run_folder, monkeypatch):
    """A stand-in that records the calls; the test below reads real files where pyarrow is installed."""
    for key, values in {"flag": [True, False], "count": [1, 2], "mixed": [1, 0.5], "other": [1, "x", [2]]}.items():
        set_override(run_folder, "p0-bc", key, values)
    arrow, parquet, tables = types.ModuleType("pyarrow"), types.ModuleType("pyarrow.parquet"), []
    for kind in ("string", "int64", "float64", "bool_"):
        setattr(arrow, kind, lambda kind=kind: kind)
    arrow.array, arrow.table, arrow.parquet = lambda values, type: (type, values), dict, parquet
    parquet.write_table = lambda table, file: (tables.append(table), file.write(b"PAR1"))
    monkeypatch.setitem(sys.modules, "pyarrow", arrow)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", parquet)
    assert [path.name for path in export.export(run_folder, ["parquet"])] == ["members.parquet", "curves.parquet"]
    kinds = {name: kind for name, (kind, _) in tables[0].items()}
    expected = {"id": "string", "failed_at": "int64", "last_score": "float64", "hparams.q_weight": "float64"}
    expected |= {"flag": "bool_", "count": "int64", "mixed": "float64", "other": "string"}
    assert {name: kinds[name] for name in expected} == expected
    assert tables[0]["other"][1][:4] == ["1", "x", "[2]", None]
    assert (run_folder / "curves.parquet").read_bytes() == b"PAR1"


def test_parquet_reads_back_as_the_table(run_folder):
    parquet = pytest.importorskip("pyarrow.parquet")
    set_override(run_folder, "p0-bc", "hparams.max_grad_norm", [float("inf"), float("nan")])
    export.export(run_folder, ["parquet"])
    expected = export.members(load_run(run_folder))
    found = parquet.read_table(run_folder / "members.parquet").to_pydict()
    assert list(found) == list(expected)
    for name, values in expected.items():
        for there, here in zip(found[name], values, strict=True):
            assert there == here or (there != there and here != here), name


def test_command_exports_beside_the_report(run_folder, capsys):
    assert command.main([str(run_folder), "--export=csv,latex"]) == 0
    printed = capsys.readouterr().out
    for name in ("report.html", "members.csv", "curves.csv", "settings.tex"):
        assert str(run_folder / name) in printed and (run_folder / name).is_file()


def test_only_a_watched_page_reads_itself_anew(run_folder):
    assert "http-equiv" not in build_report(run_folder).read_text()
    page = build_report(run_folder, refresh_seconds=7.4).read_text()
    assert page.count('<meta http-equiv="refresh" content="7">') == 1


def test_watch_rewrites_what_changed_until_the_study_has_finished(run_folder, capsys, monkeypatch):
    pages, page = [], run_folder / "report.html"

    def next_event(seconds: float) -> None:
        pages.append(page.stat().st_mtime_ns)
        assert 'http-equiv="refresh" content="3"' in page.read_text()
        if len(pages) == 2:
            (run_folder / "packs" / "p3-dql" / "done.json").write_text('{"nonfinite": []}')

    monkeypatch.setattr(watching.repeat, "__defaults__", (next_event,))
    assert command.main([str(run_folder), "--watch=3"]) == 0
    assert len(pages) == 2 and pages[0] == pages[1]  # nothing had changed in between
    assert "http-equiv" not in page.read_text()
    assert "Best of 7 settings" in capsys.readouterr().out


def test_an_interrupted_watch_leaves_a_page_that_rests(run_folder, monkeypatch):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.repeat, "__defaults__", (interrupt,))
    with pytest.raises(KeyboardInterrupt):
        command.main([str(run_folder), "--watch"])
    assert "http-equiv" not in (run_folder / "report.html").read_text()


def test_csv_quotes_what_needs_it():
    text = export.as_csv({"a": ['x,"y"', None], "b": [True, [1, "c"]]})
    assert list(csv.reader(io.StringIO(text))) == [["a", "b"], ['x,"y"', "True"], ["", '[1, "c"]']]
