"""The sweep's answer in words and as a plain table: what the page says first and the terminal says last."""

from collections.abc import Collection, Sequence
import csv
import io
import json
from typing import Any

from jaxdiff.io.report.looks import MAX_ROWS, is_large
from jaxdiff.io.report.results import Estimate, Results, Setting

FEW_SEEDS = 10


def answer(results: Results) -> list[str]:
    """Sentences, the most important first, all made from the numbers of `results`."""
    best = results.best
    if best is None or best.last is None:
        return ["There is no answer yet: no evaluation has been written.", *_troubles(results)]
    others = sum(setting.last is not None for setting in results.settings)
    lead = f"Best of {others} settings: " if others > 1 else "The one setting: "
    lead += f"{best.label}, last-checkpoint IQM {spoken(best.last)} ({seeds(best.last)}), {results.quantity_name}."
    told = [_against_baseline(results, best), *_against_data(results, best), *_searched(results)]
    return [lead, *told, *_troubles(results)]


def _searched(results: Results) -> list[str]:
    """What a search that looked at scores makes of the word setting."""
    search = str(results.run.stamp.get("config", {}).get("search", ""))
    if search.startswith("pbt"):
        copied = f"Population-based training ({search}): members of a seed copied one another"
        return [f"{copied}, and a setting is where its members started, not what they ended with."]
    stopped = sum(setting.standing == "stopped" for setting in results.settings)
    return [f"{stopped} settings were stopped early ({search}) and are ranked behind the rest."] if stopped else []


def seeds(found: Estimate) -> str:
    """'1 seed' or '4 seeds'."""
    return f"{len(found.scores)} seed" + "s" * (len(found.scores) != 1)


def spoken(found: Estimate) -> str:
    """'71.2 with 95 % interval 60.1 to 80.3'."""
    if found.interval is None:
        return f"{found.iqm:.1f} without an interval"
    return f"{found.iqm:.1f} with 95 % interval {found.interval.low:.1f} to {found.interval.high:.1f}"


def _against_baseline(results: Results, best: Setting) -> str:
    ranked = [setting for setting in results.settings if setting.last is not None]
    rival, role = results.baseline, "the baseline"
    if rival is None or rival is best:
        rival, role = (ranked[1] if len(ranked) > 1 else None), "the runner-up"
    prefix = "It is the imitation baseline itself. " if results.baseline is best else ""
    if rival is None or rival.last is None or best.last is None:
        return prefix + "There is no other setting to compare it with."
    named = f"{role}, {rival.label} (IQM {spoken(rival.last)})"
    if best.last.interval is None or rival.last.interval is None:
        return f"{prefix}Compared with {named}, one seed cannot say whether the difference is more than chance."
    if best.last.interval.low > rival.last.interval.high:
        return f"{prefix}Its interval lies above that of {named}."
    return f"{prefix}Its interval overlaps that of {named}: these seeds do not separate the two."


def _against_data(results: Results, best: Setting) -> list[str]:
    if results.dataset_mean is None or best.last is None:
        return []
    level = f"the dataset's own mean of {results.dataset_mean:.1f}"
    if best.last.interval is None:
        side = "above" if best.last.iqm > results.dataset_mean else "not above"
        return [f"Its IQM is {side} {level}."]
    if best.last.interval.low > results.dataset_mean:
        return [f"Its interval lies above {level}."]
    return [f"Its interval does not lie above {level}."]


def _troubles(results: Results) -> list[str]:
    sentences = []
    members, best = results.members, results.best
    failed = sum(result.status == "non-finite" for result in members)
    if failed:
        sentences.append(
            f"{failed} of {len(members)} members became non-finite and {_be(failed)} left out of every score."
        )
        if best is not None and best.num_nonfinite:
            sentences.append(
                f"The best setting lost {best.num_nonfinite} of its {len(best.members)} seeds that way: "
                "its score describes the survivors only."
            )
    else:
        sentences.append(f"None of the {len(members)} members became non-finite.")
    waiting = sum(pack.status != "finished" for pack in results.run.packs)
    if waiting:
        sentences.append(
            f"{waiting} of {len(results.run.packs)} packs {_be(waiting)} unfinished, so this is provisional."
        )
    if best is not None and best.last is not None and 1 < len(best.last.scores) < FEW_SEEDS:
        sentences.append(
            f"With fewer than {FEW_SEEDS} seeds a bootstrap interval tends to be too narrow; "
            "read small gaps as open questions."
        )
    return sentences


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def rows(results: Results) -> list[dict[str, Any]]:
    """The final table as plain numbers, best first; None where a setting has no number."""
    return [_row(rank, setting, results) for rank, setting in enumerate(results.settings, 1)]


def _row(rank: int, setting: Setting, results: Results) -> dict[str, Any]:
    row: dict[str, Any] = {
        "rank": rank,
        "label": setting.label,
        "algorithm": setting.algorithm,
        "is_baseline": setting is results.baseline,
        "provisional": setting.provisional,
        "seeds": len(setting.counted),
        "members": len(setting.members),
        "nonfinite": setting.num_nonfinite,
        "updates": setting.last_step if setting.last else None,
        "quantity": results.quantity_name,
    }
    for name, found in (("last", setting.last), ("running", setting.running), ("best", setting.best)):
        interval = found.interval if found else None
        row[f"{name}_mean"] = found.mean if found else None
        row[f"{name}_iqm"] = found.iqm if found else None
        row[f"{name}_iqm_low"] = interval.low if interval else None
        row[f"{name}_iqm_high"] = interval.high if interval else None
    row["overrides"] = setting.overrides
    return row


def as_json(results: Results) -> dict[str, Any]:
    """The report's numbers for a program: the answer, the table, every seed's last score."""
    table = rows(results)
    for row, setting in zip(table, results.settings, strict=True):
        row["last_scores"] = {
            str(result.member.seed): float(score)
            for result, score in zip(setting.counted, setting.last.scores if setting.last else (), strict=True)
        }
    return {
        "study": results.run.stamp.get("study"),
        "env": results.run.stamp.get("env"),
        "quantity": results.quantity_name,
        "dataset_mean": results.dataset_mean,
        "answer": answer(results),
        "settings": table,
        "nonfinite": [
            {"member": r.member.id, "label": r.member.label, "seed": r.member.seed, "pack": r.pack, "step": r.failed_at}
            for r in results.members
            if r.status == "non-finite"
        ],
        "unfinished_packs": [pack.id for pack in results.run.packs if pack.status != "finished"],
    }


def as_csv(results: Results) -> str:
    """The final table as CSV text; overrides as JSON in the last column."""
    table = rows(results)
    buffer = io.StringIO()
    if table:
        writer = csv.DictWriter(buffer, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "overrides": json.dumps(row["overrides"], sort_keys=True)} for row in table)
    return buffer.getvalue()


def as_text(results: Results) -> str:
    """The answer and the final table for a terminal; the same numbers as the page."""
    header = ["#", "setting", "seeds", "last: mean", "IQM", "95 % interval", "last 10: IQM", "best*: IQM", "non-finite"]
    lines = [header]
    count = len(results.settings)
    shown = MAX_ROWS if is_large(results) else count
    for rank, setting in enumerate(results.settings[:shown], 1):
        last, running, best = setting.last, setting.running, setting.best
        label = setting.label + (" (baseline)" if setting is results.baseline else "")
        label += f" ({setting.standing})" if setting.standing and last else ""
        interval = f"{last.interval.low:.1f} to {last.interval.high:.1f}" if last and last.interval else "-"
        numbers = [f"{last.mean:.1f}" if last else "-", f"{last.iqm:.1f}" if last else "-", interval]
        counts = [f"{len(setting.counted)}/{len(setting.members)}"]
        lines.append(
            [
                *(str(rank), label, *counts, *numbers),
                *(f"{running.iqm:.1f}" if running else "-", f"{best.iqm:.1f}" if best else "-"),
                str(setting.num_nonfinite),
            ]
        )
    table = aligned(lines, left={1})
    note = f"{results.quantity_name}; * highest evaluation of each seed, optimistic because chosen by what it reports"
    left = [f"the other {count - shown} of {count} settings are in report.csv"] if shown < count else []
    return "\n".join([*table, *left, note, "", *answer(results)]) + "\n"


def aligned(lines: Sequence[Sequence[str]], left: Collection[int]) -> list[str]:
    """Rows of cells as lines with columns of one width, those in `left` set to the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = []
    for line in lines:
        cells = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        rows.append("  ".join(cells).rstrip())
    return rows
