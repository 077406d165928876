"""Pushing a pack while it trains, in a thread of its own: uploads take no time from the updates."""

from concurrent import futures
import threading
from types import TracebackType

from absl import logging

from jaxdiff.io import cards
from jaxdiff.io.remote import Mirror

POLL_SECONDS = 0.1


class Uploads:
    """Pushes a pack after each checkpoint. A push that fails is made up for by the next; the last one must succeed.

    Use as a context manager; without `finish`, leaving it gives up what is not pushed yet.

    Args:
      mirror: of the run folder.
      pack_id: the pack.
    """

    def __init__(self, mirror: Mirror, pack_id: str) -> None:
        self._mirror, self._pack_id = mirror, pack_id
        self._thread = futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="upload")
        self._queued: futures.Future[None] | None = None
        self._is_closing = threading.Event()

    def __enter__(self) -> "Uploads":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def after(self, step: int) -> None:
        """Pushes once the checkpoint of `step` is on disk. Returns at once; takes the place of one that waits."""
        if self._queued is not None:
            self._queued.cancel()
        self._queued = self._thread.submit(self._push, step)

    def finish(self) -> None:
        """Pushes all there is, done.json or failed.json last; call it when no checkpoint is being written any more.

        Raises:
          OSError: the storage failed: what is not there by now is here only.
        """
        self._stop()
        self._mirror.push_pack(self._pack_id)

    def _stop(self) -> None:
        self._is_closing.set()
        self._thread.shutdown(cancel_futures=True)

    def _push(self, step: int) -> None:
        folder = self._mirror.local.pack(self._pack_id).checkpoints
        # A save that fails writes no card; the run hears of it from its next save, and closes this.
        while not (folder / str(step) / cards.CARD).is_file():
            if self._is_closing.wait(POLL_SECONDS):
                return
            if max(cards.whole_steps(folder), default=0) > step:
                break
        try:
            self._mirror.push_pack(self._pack_id)
        except OSError as error:
            logging.warning("pack %s, update %d: %s; tried again at the next checkpoint.", self._pack_id, step, error)
