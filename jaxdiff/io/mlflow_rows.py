"""Rows of a whole pack handed to MLflow, one run per member."""

from collections.abc import Mapping, Sequence
from concurrent import futures
import os
import time
from typing import Any

from absl import logging
import numpy as np

from jaxdiff.io.loggers import MemberLike, columns_of, library, slug


class MlflowFanout:
    """One MLflow run per member, all in one experiment. Threads send the rows, so training does not wait for them.

    `MLFLOW_TRACKING_URI` says where they go. A member's row is one request, and a tag of the run tells the step of its
    newest row: a resumed run goes on with the MLflow runs that are there and leaves out the rows that they have.

    Where the server stays away for longer than MLflow's client tries, a warning says so and nothing more is sent until
    the run is resumed; where it refuses the row of one member, that member's are no longer sent. The run folder has
    them all.

    Args:
      experiment: its name; it is made where it is missing.
      members: L of them, in lane order.
      run_id: name of the whole run, by which a resumed one finds its MLflow runs; without one they are always new.

    Raises:
      ImportError: the extra is not installed.
      ValueError: the server does not answer, or the experiment cannot be made.
    """

    THREADS = 8
    QUIET = ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT")  # it prints two lines per run
    RETRIES = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # of the first requests: 12 seconds; else MLflow's 4 minutes

    def __init__(self, experiment: str, members: Sequence[MemberLike], *, run_id: str | None = None) -> None:
        for variable in self.QUIET:
            os.environ.setdefault(variable, "true")
        self._mlflow = library("mlflow")
        self._members, self._run_id = members, None if run_id is None else slug(run_id)
        self._runs: list[str | None] = [None] * len(members)  # ids
        self._known: list[Mapping[str, str]] = [{}] * len(members)  # tags that their runs had when this session began
        self._is_open, self._is_lost = np.zeros(len(members), bool), np.zeros(len(members), bool)
        variable, retries = self.RETRIES
        is_ours = variable not in os.environ
        os.environ.setdefault(variable, retries)
        try:
            self._client = self._mlflow.MlflowClient()
            self._experiment = self._experiment_id(experiment)
            self._find_runs()
        except self._mlflow.exceptions.MlflowException as error:
            raise ValueError(
                f"MLflow, with MLFLOW_TRACKING_URI={os.environ.get('MLFLOW_TRACKING_URI', '')!r}, says: "
                f"{_first_line(error)} Give the address of your server, as http://localhost:5000. Without a server: "
                "sqlite:///PATH after `pip install mlflow`, or file:///FOLDER with MLFLOW_ALLOW_FILE_STORE=true."
            ) from error
        finally:
            if is_ours:
                del os.environ[variable]
        # Rows of one member go through one thread, in order.
        self._threads = [futures.ThreadPoolExecutor(1, "mlflow") for _ in range(min(self.THREADS, len(members)))]

    def write(self, step: int, values: Mapping[str, np.ndarray], prefix: str = "") -> None:
        """Hands one row of every member to the threads; see `TensorBoardFanout.write`."""
        columns, now = columns_of(values, prefix, len(self._members)), time.time_ns() // 1_000_000
        make = self._mlflow.entities.Metric
        for lane in range(len(self._members)):
            row = [make(name, column[lane], now, step) for name, column in columns.items()]
            self._thread(lane).submit(self._send, lane, f"jaxdiff.step.{prefix}", step, row)

    def close(self) -> None:
        """Waits until all rows are sent, and ends the runs."""
        for lane in range(len(self._members)):
            self._thread(lane).submit(self._end, lane)
        for thread in self._threads:
            thread.shutdown()

    def _thread(self, lane: int) -> futures.ThreadPoolExecutor:
        return self._threads[lane % len(self._threads)]

    def _experiment_id(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except self._mlflow.exceptions.MlflowException:
                found = self._client.get_experiment_by_name(name)
                if found is None:  # and no other worker was faster
                    raise
        return str(found.experiment_id)

    def _find_runs(self) -> None:
        """Notes the members' runs that are there, by their tags."""
        lanes = {member.id: lane for lane, member in enumerate(self._members)}
        token: str | None = ""
        wanted = f"tags.`jaxdiff.run` = '{self._run_id}'"
        while self._run_id is not None and token is not None:
            page = self._client.search_runs([self._experiment], wanted, max_results=1000, page_token=token or None)
            for run in page:
                lane = lanes.get(run.data.tags["jaxdiff.member"])
                if lane is not None:
                    self._runs[lane], self._known[lane] = run.info.run_id, run.data.tags
            token = page.token or None

    def _open(self, lane: int) -> list[Any]:
        """Makes the member's run, or goes on with the one that is there; returns its parameters."""
        member, run = self._members[lane], self._runs[lane]
        if run is not None:
            self._client.update_run(run, status="RUNNING")
        else:
            tags = {"jaxdiff.run": self._run_id or "", "jaxdiff.member": member.id, "jaxdiff.setting": member.label}
            name = f"{member.label} seed={member.seed}"
            made = self._client.create_run(self._experiment, tags=tags, run_name=name)
            self._runs[lane] = made.info.run_id
        settings = {**member.overrides, "algorithm": member.algorithm, "seed": member.seed}
        return [self._mlflow.entities.Param(key, str(value)) for key, value in settings.items()]

    def _send(self, lane: int, tag: str, step: int, row: Sequence[Any]) -> None:
        if self._is_lost[lane] or step <= int(self._known[lane].get(tag, -1)):
            return
        try:
            params = [] if self._is_open[lane] else self._open(lane)
            tags = [self._mlflow.entities.RunTag(tag, str(step))]
            self._client.log_batch(self._runs[lane], metrics=row, params=params, tags=tags)
            self._is_open[lane] = True
        except self._mlflow.exceptions.MlflowException as error:
            self._lose(lane, error, f"no more rows from update {step} on")

    def _end(self, lane: int) -> None:
        if self._is_open[lane] and not self._is_lost[lane]:
            try:
                self._client.set_terminated(self._runs[lane])
            except self._mlflow.exceptions.MlflowException as error:
                self._lose(lane, error, "not the end")

    def _lose(self, lane: int, error: Exception, what: str) -> None:
        """A refusal concerns one member; a server that does not answer concerns all."""
        is_refusal = isinstance(error, self._mlflow.exceptions.RestException)
        if is_refusal or not self._is_lost.all():
            whom = f"{self._members[lane].label} seed={self._members[lane].seed}" if is_refusal else "all members"
            logging.warning("MLflow gets %s of %s: %s", what, whom, _first_line(error))
        self._is_lost[lane if is_refusal else slice(None)] = True


def _first_line(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0]
    return line if len(line) <= 160 else f"{line[:160]} ..."
