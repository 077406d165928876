"""What a launcher must know of a prepared study: which of its packs are not finished, and how a worker is started.

A study is a list of packs (packs.json) and a folder of results. An engine says which worker runs where and starts it
again; nothing else is agreed upon. JAX is never imported here: on a login node it may be missing, and importing it
would take a share of the accelerators that the workers need.
"""

import json
from pathlib import Path
import shlex
import sys

from jaxdiff.io.storage import Storage, is_remote

RUN = "import sys; from jaxdiff.cli.main import main; sys.exit(main(sys.argv[1:]))"
REQUEUE = 75  # exit code of a worker that was told to stop, has saved, and wants to be started again
REQUEST_WAS_WRONG = 2  # exit code of a worker that will fail in the same way every time
ADVICE = "`jaxdiff sweep --config=.. --sweep=.. --workdir=DIR --prepare` makes one"


def unfinished(folder: str) -> list[str]:
    """Ids of the packs that have no done.json, in the order of the list.

    Args:
      folder: a run folder, or the URL of one.

    Raises:
      ValueError: it has no list of packs, or the list is damaged.
    """
    if is_remote(folder):
        storage = Storage(folder)
        text, there = storage.read(["packs.json"]).get("packs.json"), storage.list("packs")
        done = {name.split("/")[1] for name in there if name.endswith("/done.json")}
    else:
        path = Path(folder) / "packs.json"
        text = path.read_bytes() if path.is_file() else None
        done = {entry.parent.name for entry in Path(folder).glob("packs/*/done.json")}
    if text is None:
        raise ValueError(f"{folder} has no packs.json, so it is no prepared study; {ADVICE}.")
    try:
        packs = [str(pack["id"]) for pack in json.loads(text)["packs"]]
    except (ValueError, KeyError, TypeError) as error:
        advice = "restore a copy, or prepare the study anew"
        raise ValueError(f"{folder}/packs.json is damaged ({error}); {advice}.") from None
    return [name for name in packs if name not in done]


def worker(folder: str, *more: str) -> list[str]:
    """The command of a worker under this interpreter."""
    return [sys.executable, "-c", RUN, "work", folder, *more]


def shown(command: list[str]) -> str:
    """A command as one types it."""
    words = ["jaxdiff", *command[3:]] if command[1:3] == ["-c", RUN] else command
    return shlex.join(words)


def shard(index: int | str, count: int) -> str:
    """The flag that gives a worker every count-th pack."""
    return f"--shard={index}/{count}"
