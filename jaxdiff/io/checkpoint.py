"""Checkpoints of a pack's whole state. The only module that knows orbax.

A step folder is orbax's, plus `card.json`, written after orbax has put the folder in place: score, metadata, the layout
of the tree and the size and CRC-32 of each file. A folder without a card, or whose files do not match it, is not a
checkpoint: it is passed over with a warning. That way a damaged folder is known before orbax tries to read it.
"""

from collections.abc import Iterator
from concurrent import futures
import logging as std_logging
import math
import os
from pathlib import Path
import shutil
from types import TracebackType
from typing import Any

from absl import logging
import jax
import orbax.checkpoint as ocp

from jaxdiff.io import cards, files, trees
from jaxdiff.types import PyTree


class Checkpoints:
    """Saves and restores pytrees in one folder, keeping the last few and the best few.

    `save` copies to the host and writes in a background thread, so the caller may donate the state at once. Opening a
    folder to read changes nothing in it; damaged and half-written steps are removed by the next `save`.

    Args:
      directory: the folder; made by the first save.
      keep_last: how many of the newest checkpoints stay. At least 1.
      keep_best: how many of the highest scores stay besides; checkpoints without a finite score never count.

    Raises:
      ValueError: keep_last < 1 or keep_best < 0.
    """

    def __init__(self, directory: str | os.PathLike[str], keep_last: int = 2, keep_best: int = 1) -> None:
        if keep_last < 1 or keep_best < 0:
            raise ValueError(f"keep_last={keep_last} must be at least 1 and keep_best={keep_best} at least 0.")
        self._directory = Path(directory).absolute()
        self._keep_last, self._keep_best = keep_last, keep_best
        self._writer = futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: futures.Future[None] | None = None
        self._manager: ocp.CheckpointManager | None = None
        self._cards = dict(self._read_cards())

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def save(self, step: int, tree: PyTree, score: float | None = None, metadata: dict[str, Any] | None = None) -> None:
        """Starts writing `tree` as the checkpoint of `step`; an earlier checkpoint of that step is replaced.

        Returns as soon as the host holds a copy, after waiting for the save before this one.

        Args:
          step: updates applied so far, not negative.
          tree: arrays, typed keys and Python numbers. May be donated afterwards.
          score: higher is better; None or a non-finite number leaves the checkpoint out of the best.
          metadata: anything with a JSON form.

        Raises:
          ValueError: step is negative.
          TypeError: metadata has no JSON form.
          OSError: the save before this one failed, for instance on a full disk. Earlier checkpoints are untouched.
        """
        if step < 0:
            raise ValueError(f"step={step} must not be negative.")
        files.encode_json(metadata)
        self.wait()
        usable = score is not None and math.isfinite(score)
        card = {
            "score": float(score) if usable else None,  # type: ignore[arg-type]
            "metadata": metadata or {},
            "layout": trees.layout_of(tree),
            "keys": "data",  # typed keys are stored as numbers; checkpoints without this line have them as keys
        }
        self._pending = self._writer.submit(self._write, int(step), trees.host_copy(tree), card)

    def latest_step(self) -> int | None:
        """Newest step whose files are whole; None when there is none. After a restore fell back: the restored step."""
        self.wait()
        return max(self._cards, default=None)

    def best_step(self) -> int | None:
        """Step with the highest score, the newest of equals; None when no checkpoint has a finite score."""
        self.wait()
        return max(_scored(self._cards), key=lambda step: (self._cards[step]["score"], step), default=None)

    def steps(self) -> list[int]:
        """Steps that can be restored, ascending."""
        self.wait()
        return sorted(self._cards)

    def metadata(self, step: int) -> dict[str, Any]:
        """What `save` was given as metadata.

        Raises:
          KeyError: there is no whole checkpoint of that step.
        """
        self.wait()
        if step not in self._cards:
            raise KeyError(f"no checkpoint of step {step} in {self._directory}; steps: {sorted(self._cards)}.")
        return dict(self._cards[step]["metadata"])

    def restore(self, like: PyTree, step: int | None = None) -> PyTree:
        """Reads a checkpoint.

        Args:
          like: the tree to fill: arrays or `jax.ShapeDtypeStruct`s, placed by their sharding if they have one, else on
            the default device; numpy arrays come back as numpy.
          step: which one; None takes the newest and, if its content is damaged, the one before. `latest_step` then
            says which it was: rows of metrics after it must be dropped.

        Raises:
          ValueError: nothing to restore, the requested step is damaged, or the tree on disk differs from `like`.
        """
        self.wait()
        wanted = self.newest_whole() if step is None else step
        if wanted is None:
            raise ValueError(f"no whole checkpoint in {self._directory}; start the run anew or restore a copy.")
        if wanted not in self._cards:
            raise ValueError(f"no checkpoint of step {step} in {self._directory}; steps: {sorted(self._cards)}.")
        folder, card = self._directory / str(wanted), self._cards[wanted]
        damage = None if step is None else cards.damage(folder, card, checksums=True)
        if damage is not None:
            del self._cards[wanted]
            raise ValueError(f"checkpoint at {folder} is damaged ({damage}); steps: {sorted(self._cards)}.")
        trees.check_layout(folder, card["layout"], trees.layout_of(like))
        if card.get("keys") != "data":
            return self._open().restore(wanted, args=ocp.args.StandardRestore(trees.placed(like)))
        found = self._open().restore(wanted, args=ocp.args.StandardRestore(trees.placed(trees.numbers_for_keys(like))))
        return jax.tree.map(trees.as_key, like, found)

    def newest_whole(self) -> int | None:
        """Newest step whose content is what was written; None when there is none.

        Reads every byte, where `latest_step` looks at sizes; damaged steps are passed over from then on.
        """
        self.wait()
        for step in sorted(self._cards, reverse=True):
            folder = self._directory / str(step)
            damage = cards.damage(folder, self._cards[step], checksums=True)
            if damage is None:
                return step
            del self._cards[step]
            logging.warning("checkpoint at %s is damaged (%s) and passed over.", folder, damage)
        return None

    def wait(self) -> None:
        """Blocks until the last save is on disk.

        Raises:
          OSError, ValueError: what went wrong while writing.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Waits and releases the background thread. May be called twice."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            if self._manager is not None:
                self._manager.close()
                self._manager = None

    def _open(self) -> ocp.CheckpointManager:
        # Synchronous and keeping everything: which thread writes and what is deleted when is decided here, because a
        # checkpoint may go only after the card of a newer one is on disk.
        if self._manager is None:
            alone = ocp.options.MultiprocessingOptions()
            if jax.process_count() > 1:  # this process saves and restores by itself, without waiting for the others
                me = jax.process_index()
                alone = ocp.options.MultiprocessingOptions(me, {me}, f"process_{me}")
            self._directory.mkdir(parents=True, exist_ok=True)
            options = ocp.CheckpointManagerOptions(
                enable_async_checkpointing=False,
                save_root_metadata=False,
                create=False,
                multiprocessing_options=alone,
            )
            self._manager = ocp.CheckpointManager(self._directory, options=options)
        return self._manager

    def _write(self, step: int, tree: PyTree, card: dict[str, Any]) -> None:
        manager = self._open()
        self._clean(step)
        manager.reload()
        manager.save(step, args=ocp.args.StandardSave(tree), force=True)
        folder = self._directory / str(step)
        card["files"] = cards.listed(folder)
        files.write_json_atomic(folder / cards.CARD, card)
        self._cards[step] = card
        best = sorted(_scored(self._cards), key=lambda known: (self._cards[known]["score"], known), reverse=True)
        keep = {*sorted(self._cards)[-self._keep_last :], *best[: self._keep_best]}
        for old in set(self._cards) - keep:
            del self._cards[old]
            manager.delete(old)

    def _clean(self, step: int) -> None:
        """Removes what a killed run left, what was found damaged, and the step about to be written."""
        self._cards.pop(step, None)
        for entry in list(self._directory.iterdir()):
            is_step = entry.name.isdecimal() and int(entry.name) not in self._cards
            if entry.is_dir() and (is_step or "orbax-checkpoint-tmp" in entry.name):
                shutil.rmtree(entry)

    def _read_cards(self) -> Iterator[tuple[int, dict[str, Any]]]:
        names = os.listdir(self._directory) if self._directory.is_dir() else []
        for name in sorted((name for name in names if name.isdecimal()), key=int):
            folder = self._directory / name
            try:
                card = files.read_json(folder / cards.CARD)
                damage = cards.damage(folder, card, checksums=False)
            except FileNotFoundError:
                damage = f"it has no {cards.CARD}: the run ended while writing or removing it"
            except ValueError as error:
                damage = str(error)
            if damage is None:
                yield int(name), card
            else:
                logging.warning("checkpoint at %s is passed over: %s.", folder, damage)


def _scored(cards: dict[int, dict[str, Any]]) -> list[int]:
    return [step for step, card in cards.items() if card["score"] is not None]


def _is_for_users(record: std_logging.LogRecord) -> bool:
    return "orbax" not in Path(record.pathname).parts or record.levelno >= std_logging.ERROR


# orbax reports each step of each save through absl's logger; only its errors concern whoever watches a run.
logging.get_absl_logger().addFilter(_is_for_users)
