"""A study whose workers are killed every few seconds, whose disk fills up and whose checkpoints are damaged.

  python -m experiments.studies.chaos --out=runs/chaos [--config=pointmaze] [--sweep=large] [--workers=2] [--every=12]

The study is prepared once and copied. One copy is left alone; in the other, workers get SIGKILL or SIGTERM at random,
once the disk is full for a while (as root the folder is a small file system of its own; otherwise this is left out, and
said so), and once the newest checkpoint of an unfinished pack gets a wrong byte. In the end the two are compared member
by member, bit by bit. Returns 1 where any differs or is missing. Flags after `--` go to `jaxdiff sweep`.
"""

import argparse
from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
import random
import shutil
import signal
import subprocess
import sys
import time

from jaxdiff.io.digest import digest, member_digests
from jaxdiff.io.folders import RunDir
from jaxdiff.io.runs import load_run

COMMAND = "import sys; from jaxdiff.cli.main import main; sys.exit(main(sys.argv[1:]))"
FULL_FOR = 10.0  # seconds that the disk stays full


def jaxdiff(*arguments: str) -> list[str]:
    """A command line of `jaxdiff`, in this interpreter."""
    return [sys.executable, "-c", COMMAND, *arguments]


def workers_of(folder: Path) -> list[int]:
    """Process ids of the workers on a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"work" in words and str(folder).encode() in words:
                    found.append(int(entry.name))
    return found


class Chaos:
    """What is done to a folder, and how often it was."""

    def __init__(self, folder: Path, every: float, is_small_disk: bool, seed: int = 0) -> None:
        self.folder, self.every, self.generator = folder, every, random.Random(seed)
        self.kills = self.stops = 0
        self.was_full, self.was_damaged = not is_small_disk, False
        self.damaged = ""

    def strike(self) -> None:
        """Ends one worker, and once each fills the disk and damages a checkpoint."""
        time.sleep(self.generator.uniform(0.5, 1.5) * self.every)
        workers = workers_of(self.folder)
        if not workers:
            return
        victim, is_kill = self.generator.choice(workers), self.generator.random() < 0.5
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL if is_kill else signal.SIGTERM)
        self.kills, self.stops = self.kills + is_kill, self.stops + (not is_kill)
        if self.kills + self.stops >= 3 and not self.was_full:
            self.fill()
        elif self.kills + self.stops >= 5 and not self.was_damaged:
            self.damage()

    def fill(self) -> None:
        """No byte is left on the folder's disk for a while."""
        ballast = self.folder / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        time.sleep(FULL_FOR)
        ballast.unlink()
        self.was_full = True

    def damage(self) -> None:
        """One byte of the newest checkpoint of a pack that nobody works on; every worker is killed for that."""
        for pid in workers_of(self.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.kills += 1
        run = RunDir(self.folder)
        cards = [
            card
            for name in run.list_packs()
            if not run.pack(name).is_done()
            for card in run.pack(name).checkpoints.glob("*/card.json")
        ]
        if cards:
            newest = max(cards, key=lambda card: card.stat().st_mtime_ns).parent
            largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda path: path.stat().st_size)
            content = bytearray(largest.read_bytes())
            content[len(content) // 2] ^= 0xFF
            largest.write_bytes(content)
            self.was_damaged, self.damaged = True, str(newest.relative_to(self.folder))


def launch(folder: Path, workers: int) -> list[str]:
    """The command that trains a prepared folder on this machine."""
    return jaxdiff("launch", "local", str(folder), f"--workers={workers}", "--noreport")


def disturbed(folder: Path, chaos: Chaos, workers: int) -> int:
    """Trains a folder under chaos; how often the launcher itself had to be started."""
    starts = 0
    with open(folder.parent / "disturbed.log", "ab") as log:
        while not _is_done(folder):
            starts += 1
            launcher = subprocess.Popen(launch(folder, workers), stdout=log, stderr=log)
            while launcher.poll() is None:
                chaos.strike()
    return starts


def _is_done(folder: Path) -> bool:
    try:
        return RunDir(folder).is_done()
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """A file system of so many megabytes at the folder, where we may make one; yields whether."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            shutil.copytree(folder, folder.with_name(f"{folder.name}-kept"), dirs_exist_ok=True)
            subprocess.run(["umount", "-l", str(folder)], check=False)


def main() -> int:
    """Runs both and compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--config", default="pointmaze")
    parser.add_argument("--sweep", default="large")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every", type=float, default=12.0, help="seconds between strikes, on average")
    parser.add_argument("--disk", type=int, default=512, help="megabytes of the disturbed folder's disk")
    parser.add_argument("extra", nargs="*", help="flags of jaxdiff sweep, behind --")
    flags = parser.parse_args()
    calm, wild = (flags.out.absolute() / name for name in ("undisturbed", "disturbed"))
    sweep = [f"--config={flags.config}", f"--sweep={flags.sweep}", "--lanes=map", *flags.extra]
    subprocess.run(jaxdiff("sweep", *sweep, f"--workdir={calm}", "--prepare"), check=True)
    with small_disk(wild, flags.disk) as is_small:
        shutil.copytree(calm, wild, dirs_exist_ok=True)
        started = time.monotonic()
        subprocess.run(launch(calm, flags.workers), check=True)
        between = time.monotonic()
        chaos = Chaos(wild, flags.every, is_small)
        starts = disturbed(wild, chaos, flags.workers)
        ended = time.monotonic()
        first, second = (member_digests(load_run(folder)) for folder in (calm, wild))
    differ = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    print(f"undisturbed: {len(first)} members in {between - started:.0f} s, digest {digest(first)}")
    print(f"disturbed:   {len(second)} members in {ended - between:.0f} s, digest {digest(second)}")
    print(f"{chaos.kills} SIGKILL, {chaos.stops} SIGTERM, launcher started {starts} times")
    print(f"disk full once: {'yes' if is_small else 'not tried'}; damaged: {chaos.damaged or 'nothing'}")
    print(f"members that differ: {len(differ)} {' '.join(differ[:5])}")
    return 1 if differ or not first else 0


if __name__ == "__main__":
    sys.exit(main())
