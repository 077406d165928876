"""How wide packs are: the rule on curves whose answer is known, a measurement, and what a study remembers of it."""

import dataclasses
from pathlib import Path

import jax
import pytest

from jaxdiff import sweep
from jaxdiff.cli import config as configs
from jaxdiff.cli import dry_run, memory, plan, programs, width, work
from jaxdiff.cli import main as cli
from jaxdiff.cli.study import make_members
from jaxdiff.cli.task import make_task
from jaxdiff.io import packlist
from jaxdiff.io.folders import RunDir

FLAT = {1: 100.0, 4: 100.0, 16: 98.0, 64: 97.0, 256: 96.0}
FALLING = {1: 100.0, 4: 96.0, 16: 80.0, 64: 60.0}
RISING = {1: 10.0, 4: 40.0, 16: 150.0, 64: 500.0, 256: 900.0}
PEAKED = {1: 35.0, 4: 47.0, 16: 46.0, 64: 41.0, 256: 20.0}
PER_MEMBER, DATA = 10, 50


class Device:
    """A device whose speed at each width is given, which runs out of memory above `capacity` bytes."""

    def __init__(self, *curves: dict[int, float], modes: tuple[str, ...] = ("vmap",), capacity: float = float("inf")):
        self.curves, self.capacity = dict(zip(modes, curves, strict=True)), capacity
        self.tried: list[tuple[int, str]] = []

    def probe(self, lanes: int, mode: str) -> tuple[float, int]:
        self.tried.append((lanes, mode))
        held = DATA + PER_MEMBER * lanes
        if held > self.capacity:
            raise width.TooWide
        return self.curves[mode][lanes], held

    def choose(self, largest: int, limit: int | None = None) -> packlist.Width:
        points = width.climb(self.probe, largest, lambda lanes: tuple(self.curves), DATA, limit)
        return width.choose(points, DATA, limit)

    @property
    def widths(self) -> list[int]:
        return [lanes for lanes, _ in self.tried]


@pytest.mark.parametrize(
    ("curve", "largest", "chosen", "tried"),
    [
        (FLAT, 256, 256, [1, 4, 16, 64, 256]),  # nothing to lose: the fewest packs
        (FALLING, 64, 4, [1, 4, 16]),  # 16 is below 0.9 of the best, so 64 is never compiled; 4 is as good as 1
        (RISING, 256, 256, [1, 4, 16, 64, 256]),
        (PEAKED, 256, 16, [1, 4, 16, 64]),
        ({1: 100.0, 4: 94.0}, 4, 1, [1, 4]),  # not within 5 %
        ({1: 100.0, 4: 95.0}, 4, 4, [1, 4]),
        ({1: 100.0, 4: 91.0, 16: 200.0}, 16, 16, [1, 4, 16]),  # a small dip is climbed over
        ({1: 1.0}, 1, 1, [1]),  # a group of one
        ({1: 1.0, 2: 2.0}, 2, 2, [1, 2]),
        ({1: 1.0, 4: 2.0, 16: 3.0, 40: 4.0}, 40, 40, [1, 4, 16, 40]),  # the whole group, if that is worth a compile
        ({1: 1.0, 4: 2.0, 16: 3.0}, 31, 16, [1, 4, 16]),
    ],
)
def test_the_widest_of_the_fastest_is_taken_and_slower_widths_end_the_climb(curve, largest, chosen, tried):
    device = Device(curve)
    found = device.choose(largest)
    assert (found.width, device.widths) == (chosen, tried)
    assert found.curve == {lanes: curve[lanes] for lanes in tried}
    assert found.bytes_per_member == PER_MEMBER


@pytest.mark.parametrize(
    ("limit", "tried"),
    [
        ((DATA + 640) / 0.8, [1, 4, 16, 64]),
        ((DATA + 640) / 0.8 - 1, [1, 4, 16]),
        ((DATA + 40) / 0.8 - 1, [1]),
        (1, [1]),  # one member is always tried
    ],
)
def test_what_would_fill_the_memory_is_known_before_it_is_compiled(limit, tried):
    device = Device(RISING)
    assert device.choose(256, limit).width == tried[-1]
    assert device.widths == tried


def test_memory_that_runs_out_ends_the_climb_below():
    device = Device(RISING, capacity=DATA + 16 * PER_MEMBER)
    found = device.choose(256)
    assert (found.width, device.widths) == (16, [1, 4, 16, 64])
    assert 64 not in found.curve


def test_a_member_that_does_not_fit_alone_is_left_to_fail_in_training():
    found = Device(RISING, capacity=0).choose(256)
    assert (found.width, found.mode, found.curve, found.bytes_per_member) == (1, "vmap", {}, None)


def test_bytes_lie_on_the_line_through_the_two_widest():
    bent = {1: 1000, 4: 1100, 16: 1900}  # from 16 on 800 / 12 per member
    limit = (1900 + 48 * 800 / 12) / 0.8
    assert width.is_room(bent, 64, 0, limit)
    assert not width.is_room(bent, 64, 0, limit - 1)
    assert width.is_room({4: 500}, 8, 100, 900 / 0.8)  # 100 stay, 400 double
    assert not width.is_room({4: 500}, 8, 100, 899 / 0.8)


def test_a_mode_that_lags_is_not_compiled_again_and_the_best_one_is_told():
    device = Device(PEAKED, {lanes: 1.5 * rate for lanes, rate in PEAKED.items()}, modes=("vmap", "shard"))
    found = device.choose(16)
    assert found.mode == "shard"
    assert device.tried == [(1, "vmap"), (1, "shard"), (4, "shard"), (16, "shard")]


def test_a_mode_that_runs_out_of_memory_leaves_the_other():
    slim = Device(RISING, RISING, modes=("vmap", "map"))
    full = slim.probe
    slim.probe = lambda lanes, mode: full(lanes, mode) if (lanes, mode) != (16, "vmap") else full(10**9, mode)
    slim.capacity = 1e6
    assert (slim.choose(64).width, slim.choose(64).mode) == (64, "map")


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 20, 50])
def test_every_worker_gets_a_pack_and_no_more_packs_than_that_takes(workers):
    everybody = [sweep.Member(str(i), "", "", {}, i, {}) for i in range(40)]
    for num_members in range(1, 41):
        group = everybody[:num_members]
        counts = {lanes: len(sweep.split_packs(group, lanes)) for lanes in range(1, num_members + 1)}
        found = plan.widest_for(num_members, workers)
        assert counts[found] == min(count for count in counts.values() if count >= min(workers, num_members))
        assert max(len(pack.members) for pack in sweep.split_packs(group, found)) == found


def test_ram_is_what_is_available_and_no_more_than_the_container_has():
    files = {"/proc/meminfo": "MemTotal:  9 kB\nMemAvailable:    2000 kB\n"}

    def read(path):
        return files.get(str(path), "")

    assert memory.available_ram(read) == 2000 * 1024
    files |= {"/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/memory.current": "5\n"}
    assert memory.available_ram(read) == 2000 * 1024
    files["/sys/fs/cgroup/memory.max"] = "1005\n"
    assert memory.available_ram(read) == 1000
    assert memory.available_ram(lambda path: "") is None


def test_only_memory_that_ran_out_counts_as_such():
    error = jax.errors.JaxRuntimeError
    assert width.is_out_of_memory(error("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 7 bytes."))
    assert width.is_out_of_memory(MemoryError())
    assert not width.is_out_of_memory(error("INVALID_ARGUMENT: shapes"))


@pytest.mark.parametrize("text", ["0", "-1", "many", "", "1.5"])
def test_max_lanes_is_a_number_or_auto(text):
    assert (plan.read_max_lanes("auto"), plan.read_max_lanes("12")) == ("auto", 12)
    with pytest.raises(ValueError, match=f"--max_lanes='{text}' must be a whole number from 1 on, or auto"):
        plan.read_max_lanes(text)


GROWN = """

def sweep_seeds():
    for seed in range(6):
        yield {"algorithm": "diffusion_bc", "seed": seed}


def sweep_more():
    for seed in range(11):
        yield {"algorithm": "diffusion_bc", "seed": seed}
"""


@pytest.fixture
def grown(study: list[str], tmp_path: Path) -> list[str]:
    """The package's study in a config with studies of more seeds; arguments without --sweep and --workdir."""
    path, _, data = study[0].removeprefix("--config=").partition(":")
    copy = tmp_path / "study.py"
    copy.write_text(Path(path).read_text() + GROWN)
    return [f"--config={copy}:{data}", "--lanes=vmap", "--max_lanes=auto"]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Groups of more than 4 are measured; sizes of those that were, each found best at 2 by map."""
    sizes: list[int] = []

    def measure(task, members, lanes, limit, largest):
        sizes.append(len(members))
        return packlist.Width(min(2, largest), "map", {1: 10.0, 2: 20.5}, 7, limit)

    monkeypatch.setattr(width, "MEASURED_ABOVE", 4)
    monkeypatch.setattr(width, "measure", measure)
    return sizes


def sizes_of(folder: Path) -> list[int]:
    return [len(entry.members) for entry in packlist.read_list(folder).packs]


def test_a_small_group_is_measured_as_it_is(study, monkeypatch):
    monkeypatch.setattr(programs, "PROBE_SECONDS", 0.05)
    config = configs.load(study[0].removeprefix("--config="), [("batch_size", "4")])
    members = make_members(config, [{"algorithm": "bc", "seed": seed} for seed in range(2)])
    task = make_task(members[0].config)
    found = width.measure(task, members, "vmap", limit=10**9)
    assert found.curve.keys() == {1, 2}
    assert all(rate > 0 for rate in found.curve.values())
    assert (found.mode, found.limit) == ("vmap", 10**9)
    assert found.width == max(w for w, rate in found.curve.items() if rate >= 0.95 * max(found.curve.values()))
    assert found.bytes_per_member >= memory.member_bytes(task, members[0])
    assert width.measure(task, members, "vmap", limit=1).curve.keys() == {1}


def prepared(argv: list[str], folder: Path, *more: str) -> Path:
    assert cli.main(["sweep", *argv, f"--workdir={folder / 'run'}", "--prepare", *more]) == 0
    return folder / "run"


def test_a_study_is_measured_once_and_its_new_members_take_the_width_it_had(grown, counted, tmp_path, capsys):
    folder = prepared(grown, tmp_path, "--sweep=seeds")
    assert (counted, sizes_of(folder)) == ([6], [2, 2, 2])
    assert "at most 2 members by map; member-updates/s by width 1: 10, 2: 20" in capsys.readouterr().err
    first = packlist.read_list(folder)
    (found,) = first.widths.values()
    assert (found.width, found.mode, found.curve, found.bytes_per_member) == (2, "map", {1: 10.0, 2: 20.5}, 7)
    assert first.widths.keys() == {first.packs[0].group}
    prepared(grown, tmp_path, "--sweep=seeds")
    prepared(grown, tmp_path, "--sweep=more")
    assert counted == [6]
    assert sizes_of(folder) == [2, 2, 2, 2, 2, 1]
    assert packlist.read_list(folder).packs[:3] == first.packs
    assert packlist.read_list(folder).widths == first.widths


def test_workers_use_the_mode_that_was_measured_where_the_plan_leaves_it_open(grown, counted, tmp_path):
    made = plan.from_folder(prepared(grown, tmp_path, "--sweep=seeds"), ["work"])
    lone = sweep.Pack("lone", made.packs[0].members[:1])
    assert work.lanes_of(made, made.packs[0]) == "vmap"  # as the command said
    free = dataclasses.replace(made, lanes="auto")
    assert [work.lanes_of(free, pack) for pack in (made.packs[0], lone)] == ["map", "auto"]


def test_a_small_group_is_one_pack_without_measuring_and_workers_share_it(grown, counted, tmp_path):
    assert sizes_of(prepared(grown, tmp_path / "one", "--sweep=methods")) == [1, 2]
    assert sizes_of(prepared(grown, tmp_path / "two", "--sweep=methods", "--workers=2")) == [1, 1, 1]
    assert counted == []
    assert sizes_of(prepared(grown, tmp_path / "six", "--sweep=seeds", "--workers=6")) == [1] * 6


def test_a_repeated_study_keeps_its_packs_and_is_not_measured(grown, counted, tmp_path):
    folder = prepared(grown, tmp_path, "--sweep=seeds")
    there = plan.from_folder(folder, ["rerun"])
    again = dataclasses.replace(there, workdir=tmp_path / "again", repeats=folder)
    assert width.measured(plan.as_in_folder(again), pytest.fail) == again
    assert (counted, [len(pack.members) for pack in again.packs]) == ([6], [2, 2, 2])


def test_a_list_from_before_widths_reads_as_one_without(grown, tmp_path):
    folder = prepared(grown, tmp_path, "--sweep=methods")
    path = RunDir(folder).packs_json
    text = path.read_text()
    assert '"widths": {}' in text
    path.write_text(text.replace(',\n "widths": {}', ""))
    assert "widths" not in path.read_text()
    assert packlist.read_list(folder).widths == {}
    path.write_text(text.replace('"widths": {}', '"widths": {"group": {"width": 2}}'))
    with pytest.raises(ValueError, match=r"packs.json: a width has no 'mode': it was edited"):
        packlist.read_list(folder)


def test_a_dry_run_measures_and_cuts_as_training_would_and_writes_nothing(grown, counted, tmp_path, monkeypatch):
    asked: list[tuple[list[int], str, int]] = []

    def estimate(packs, lanes, found):
        asked.append(([len(pack.members) for pack in packs], lanes, found.width))
        raise RuntimeError("seen enough")

    monkeypatch.setattr(dry_run, "estimate", estimate)
    line = ["sweep", *grown, "--sweep=seeds", f"--workdir={tmp_path / 'dry'}", "--dry_run", "--workers=2"]
    with pytest.raises(RuntimeError, match="seen enough"):
        cli.main(line)
    assert (asked, counted) == ([([2, 2, 2], "vmap", 2)], [6])
    assert not (tmp_path / "dry").exists()
