"""`fake_worker.py DIR [--shard=I/N]`: walks packs.json as a worker does, without JAX, and misbehaves as it is told.

DIR/todo/PACK holds words, of which each visit to the pack takes the first: fail (exit 1), kill (SIGKILL itself), stop
(exit 75), wrong (exit 2), save (a checkpoint, then exit 1), wait (until SIGTERM, then exit 75). A pack without words is
done. DIR/visits.txt lists the visits, DIR/saved.txt the waits that ended well.
"""

import fcntl
import json
import os
from pathlib import Path
import signal
import sys
import time


def main() -> int:
    folder, told = Path(sys.argv[1]), []
    signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    shards = [word.removeprefix("--shard=") for word in sys.argv[2:] if word.startswith("--shard=")]
    index, count = map(int, (shards or ["0/1"])[0].split("/"))
    for entry in json.loads((folder / "packs.json").read_text())["packs"][index::count]:
        pack = folder / "packs" / entry["id"]
        pack.mkdir(parents=True, exist_ok=True)
        with open(pack / "lock", "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            if not (pack / "done.json").exists() and (code := visit(folder, entry["id"], told)) is not None:
                return code
    return 0


def visit(folder: Path, name: str, told: list[int]) -> int | None:
    """An exit code, or None where the pack is done."""
    with open(folder / "visits.txt", "a") as visits:
        visits.write(f"{name} {sorted(os.sched_getaffinity(0))} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
    todo = folder / "todo" / name
    word, *rest = (todo.read_text() if todo.exists() else "").split() or [""]
    if word:
        todo.write_text(" ".join(rest))
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "wait":
        for _ in range(3000):
            if told:
                break
            time.sleep(0.01)
        time.sleep(0.1)  # saving
        if len(told) != 1:
            return 3
        with open(folder / "saved.txt", "a") as saved:
            saved.write(f"{name}\n")
        return 75
    if word == "save":
        step = 1 + len(list((folder / "packs" / name).glob("checkpoints/*")))
        (folder / "packs" / name / "checkpoints" / str(step)).mkdir(parents=True)
        (folder / "packs" / name / "checkpoints" / str(step) / "card.json").write_text("{}")
        return 1
    if word:
        return {"fail": 1, "stop": 75, "wrong": 2}[word]
    (folder / "packs" / name / "done.json").write_text("{}")
    return None


if __name__ == "__main__":
    sys.exit(main())
