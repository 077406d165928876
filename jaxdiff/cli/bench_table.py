"""The table of `jaxdiff bench`: what was measured of each row, how rows compare, and the words around them."""

from collections.abc import Mapping, Sequence
import dataclasses
import statistics
from typing import Any

import jax

from jaxdiff import sweep
from jaxdiff.cli.programs import Programs
from jaxdiff.types import Spec

BASELINE = (1, "vmap")
PRECISION = "jax_default_matmul_precision"  # of float32 products: on some devices fewer bits by default
HEADS = (
    "lanes", "mode", "member-updates/s", "spread", "vs 1 vmap lane", "GFLOP/s", "of peak",
    "compile s", "cached s", "auto",
)  # fmt: skip


@dataclasses.dataclass
class Row:
    """One number of lanes under one mode."""

    lanes: int
    mode: str
    cache: str  # folder of this row's compilation cache
    programs: Programs
    cold_seconds: float  # to compile with an empty cache
    cached_seconds: float  # to trace and load from a filled one
    updates: int = 0  # per measurement
    seconds: list[float] = dataclasses.field(default_factory=list)  # of each measurement

    @property
    def rate(self) -> float:
        """Median member-updates per second."""
        return self.lanes * self.updates / statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """(slowest - fastest) / median of the measurements."""
        return (max(self.seconds) - min(self.seconds)) / statistics.median(self.seconds)


def summarise(rows: Sequence[Row], flops: Mapping[str, Any], peak: float) -> dict[str, Any]:
    """Every number of the table as plain values."""
    baseline = next(row.rate for row in rows if (row.lanes, row.mode) == BASELINE)
    chosen = chosen_modes(rows)
    # Devices of a CPU share its cores, so the peak of one is the peak of all.
    devices = 1 if jax.default_backend() == "cpu" else jax.device_count()
    table = []
    for row in rows:
        used = devices if row.mode in ("shard", "pmap") else 1
        operations = row.rate * flops["update"]
        table.append(
            {
                "lanes": row.lanes,
                "mode": row.mode,
                "member_updates_per_second": row.rate,
                "spread": row.spread,
                "relative": row.rate / baseline,
                "flops_per_second": operations,
                "fraction_of_peak": operations / (peak * used),
                "compile_seconds_cold": row.cold_seconds,
                "compile_seconds_cached": row.cached_seconds,
                "auto": chosen.get(row.lanes) == row.mode,
                "updates_per_measurement": row.updates,
                "seconds": row.seconds,
            }
        )
    return {
        "rows": table,
        "flops_per_update": dict(flops),
        "peak_flops_per_second": peak,
        "matmul_precision": getattr(jax.config, PRECISION) or "default",
        "shortest_measurement_seconds": min(min(row.seconds) for row in rows),
    }


def chosen_modes(rows: Sequence[Row]) -> dict[int, str]:
    """Lanes -> the mode that `--lanes=auto` picks by these measurements, among the modes it would try."""
    seconds: dict[int, dict[str, float]] = {}
    for row in rows:
        if row.mode in sweep.candidate_modes(row.lanes, jax.device_count()):
            seconds.setdefault(row.lanes, {})[row.mode] = row.lanes / row.rate
    return {lanes: sweep.choose_mode(timed) for lanes, timed in seconds.items()}


def markdown(result: Mapping[str, Any], config: Mapping[str, Any], name: str, spec: Spec) -> str:
    """The table and what it takes to read it; `name` is the config's, `spec` has the sizes of the data."""
    flops, rows = result["flops_per_update"], result["rows"]
    sizes = f"observations of {spec.obs_dim}, actions of {spec.action_dim} numbers"
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}"
    xla = "says nothing" if flops["xla"] is None else f"says {flops['xla'] / 1e9:.3g}, elementwise work included"
    wall = f"at least {result['shortest_measurement_seconds']:.2f} s each"
    lines = [
        f"{name}: {config['algorithm']}, batch {config['batch_size']}, {sizes}; {device}",
        f"one update: {flops['update'] / 1e9:.3g} GFLOP in matrix products, from its trace; XLA's cost analysis {xla}",
        f"largest float32 matrix product of one device: {result['peak_flops_per_second'] / 1e9:.0f} GFLOP/s",
        f"median of {len(rows[0]['seconds'])} interleaved measurements, {wall}; spread is slowest minus fastest",
        "",
        f"| {' | '.join(HEADS)} |",
        "|--:|:--|--:|--:|--:|--:|--:|--:|--:|:--|",
    ]
    for row in rows:
        cells = [
            str(row["lanes"]),
            row["mode"],
            f"{row['member_updates_per_second']:.1f}",
            f"{row['spread']:.0%}",
            f"{row['relative']:.2f}",
            f"{row['flops_per_second'] / 1e9:.1f}",
            f"{row['fraction_of_peak']:.1%}",
            f"{row['compile_seconds_cold']:.1f}",
            f"{row['compile_seconds_cached']:.1f}",
            "picked" if row["auto"] else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
