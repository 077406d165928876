from collections import namedtuple
import os
import struct
import sys
import types

import numpy as np
import pytest

from jaxdiff.io.loggers import TensorBoardFanout, WandbFanout
from jaxdiff.io.mlflow_rows import MlflowFanout
from jaxdiff.io.runs import Member

MEMBERS = [
    Member("a0", "ql q_weight=1", "ql", {"hparams.q_weight": 1.0}, 0),
    Member("a1", "ql q_weight=1", "ql", {"hparams.q_weight": 1.0}, 1),
    Member("b0", "ql q_weight=2", "ql", {"hparams.q_weight": 2.0}, 0),
]
FOLDERS = ["ql_q_weight=1/seed_0", "ql_q_weight=1/seed_1", "ql_q_weight=2/seed_0"]


def events(folder):
    """All events in a folder's files: TFRecord framing is length, its CRC, the record, its CRC."""
    from tensorboardX.proto.event_pb2 import Event

    out = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            out.append(Event.FromString(content[12 : 12 + length]))
            content = content[12 + length + 4 :]
    return out


def scalars(folder):
    return [(event.step, value.tag, value.simple_value) for event in events(folder) for value in event.summary.value]


def test_tensorboard_files_hold_each_members_rows(tmp_path):
    log = TensorBoardFanout(tmp_path, MEMBERS)
    log.write(10, {"loss": np.array([1.0, 2.0, 3.0]), "q": np.array([4.0, 5.0, np.nan])}, "train")
    log.write(20, {"score": np.array([7.0, 8.0, 9.0])}, "eval")
    log.close()
    assert sorted(str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("events*")) == FOLDERS
    assert scalars(tmp_path / FOLDERS[1]) == [(10, "train/loss", 2.0), (10, "train/q", 5.0), (20, "eval/score", 8.0)]
    assert np.isnan(scalars(tmp_path / FOLDERS[2])[1][2])


def test_tensorboard_resume_purges_what_came_after_the_checkpoint(tmp_path):
    log = TensorBoardFanout(tmp_path, MEMBERS[:1], resume_step=20)
    log.write(30, {"loss": np.array([1.0])})
    log.close()
    starts = [event.step for event in events(tmp_path / FOLDERS[0]) if event.HasField("session_log")]
    assert starts == [21]  # TensorBoard drops earlier events from this step on
    assert scalars(tmp_path / FOLDERS[0]) == [(30, "loss", 1.0)]


def test_members_that_share_setting_and_seed_get_their_own_folders(tmp_path):
    twins = [Member("x", "bc", "bc", {}, 0), Member("y", "bc", "bc", {}, 0)]
    TensorBoardFanout(tmp_path, twins).close()
    assert sorted(path.name for path in (tmp_path / "bc").iterdir()) == ["seed_0_x", "seed_0_y"]


def test_a_column_without_one_number_per_member_is_refused(tmp_path):
    log = TensorBoardFanout(tmp_path, MEMBERS)
    with pytest.raises(ValueError, match=r"metric 'returns' has shape \(3, 5\); one number per member is \(3,\)"):
        log.write(1, {"returns": np.zeros((3, 5))})
    log.close()


LOGGED_IN = {False: True}


class FakeRun:
    def __init__(self, settings):
        self.settings, self.rows, self.finished = settings, [], False

    def log(self, row, step):
        self.rows.append((step, row))

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb_runs(monkeypatch):
    runs = []

    def init(**settings):
        runs.append(FakeRun(settings))
        return runs[-1]

    login = LOGGED_IN.__getitem__  # by the prompt argument: a prompt fails the test
    fake = types.SimpleNamespace(init=init, login=lambda *, prompt, verify: login(prompt))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return runs


def test_wandb_gets_one_run_per_member(wandb_runs):
    log = WandbFanout("p", MEMBERS, {"batch_size": 8, "seed": 99})
    log.write(10, {"loss": np.array([1.0, 2.0, 3.0])}, "train")
    log.close()
    assert [run.rows for run in wandb_runs] == [[(10, {"train/loss": value})] for value in (1.0, 2.0, 3.0)]
    assert all(run.finished for run in wandb_runs)
    settings = wandb_runs[1].settings
    assert (settings["project"], settings["group"], settings["reinit"]) == ("p", "ql q_weight=1", "create_new")
    assert settings["config"] == {"batch_size": 8, "hparams.q_weight": 1.0, "algorithm": "ql", "seed": 1}
    assert [run.settings["id"] for run in wandb_runs] == [None] * 3


@pytest.mark.parametrize(("variable", "mode"), [(None, "offline"), ("online", "online"), ("disabled", "disabled")])
def test_wandb_mode_is_the_environments_and_else_never_asks(wandb_runs, monkeypatch, variable, mode):
    if variable is not None:
        monkeypatch.setenv("WANDB_MODE", variable)
    WandbFanout("p", MEMBERS[:1], {})
    assert wandb_runs[0].settings["mode"] == mode


def test_wandb_online_without_a_login_says_what_to_do(wandb_runs, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setitem(LOGGED_IN, False, False)
    with pytest.raises(ValueError, match="WANDB_MODE=online needs a login: run `wandb login`"):
        WandbFanout("p", MEMBERS, {})
    assert wandb_runs == []


def test_wandb_run_id_makes_resume_continue_the_same_runs(wandb_runs):
    for _ in range(2):
        WandbFanout("p", MEMBERS[:2], {}, run_id="study 7")
    assert [run.settings["id"] for run in wandb_runs] == ["study_7-a0", "study_7-a1"] * 2
    assert {run.settings["resume"] for run in wandb_runs} == {"allow"}


def test_missing_wandb_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r'pip install "jaxdiff\[wandb\]"'):
        WandbFanout("p", MEMBERS, {})


Metric = namedtuple("Metric", "key value timestamp step")
Param = namedtuple("Param", "key value")
RunTag = namedtuple("RunTag", "key value")


class MlflowException(Exception):
    pass


class RestException(MlflowException):
    pass


class FakeServer:
    """What a tracking server keeps, and the client that writes it; `refuses` is what its next writes raise."""

    def __init__(self):
        self.experiments, self.runs, self.requests, self.refuses = {}, {}, 0, {}

    def get_experiment_by_name(self, name):
        return types.SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name):
        return self.experiments.setdefault(name, str(len(self.experiments)))

    def create_run(self, experiment, tags, run_name):
        info = types.SimpleNamespace(run_id=f"r{len(self.runs)}", name=run_name, status="RUNNING")
        data = types.SimpleNamespace(tags=dict(tags), params={}, metrics=[])
        self.runs[info.run_id] = types.SimpleNamespace(info=info, data=data, experiment=experiment)
        return self.runs[info.run_id]

    def update_run(self, run_id, status):
        self.runs[run_id].info.status = status

    def set_terminated(self, run_id):
        self.runs[run_id].info.status = "FINISHED"

    def search_runs(self, experiments, wanted, max_results, page_token):
        """Pages of two runs."""
        run, start = wanted.partition("= ")[2].strip("'"), int(page_token or 0)
        found = [r for r in self.runs.values() if r.experiment in experiments and r.data.tags["jaxdiff.run"] == run]

        class Page(list):
            token = str(start + 2) if start + 2 < len(found) else None

        return Page(found[start : start + 2])

    def log_batch(self, run_id, metrics, params, tags):
        if run_id in self.refuses:
            raise self.refuses[run_id]
        run = self.runs[run_id]
        self.requests += 1
        run.data.metrics += [(m.key, m.step, m.value) for m in metrics]
        run.data.params |= {p.key: p.value for p in params}
        run.data.tags |= {tag.key: tag.value for tag in tags}


@pytest.fixture
def server(monkeypatch):
    found = FakeServer()
    entities = types.SimpleNamespace(Metric=Metric, Param=Param, RunTag=RunTag)
    exceptions = types.SimpleNamespace(MlflowException=MlflowException, RestException=RestException)
    fake = types.SimpleNamespace(MlflowClient=lambda: found, entities=entities, exceptions=exceptions)
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    for variable in MlflowFanout.QUIET:
        monkeypatch.setenv(variable, "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return found


def named(server):
    """Run name -> what the server has of it."""
    return {run.info.name: run for run in server.runs.values()}


def test_mlflow_gets_one_run_per_member_and_a_members_row_in_one_request(server):
    log = MlflowFanout("e", MEMBERS, run_id="study 7")
    log.write(10, {"loss": np.array([1.0, 2.0, 3.0]), "q": np.array([4.0, 5.0, 6.0])}, "train")
    log.close()
    assert list(server.experiments) == ["e"]
    assert server.requests == 3
    run = named(server)["ql q_weight=1 seed=1"]
    assert sorted(named(server)) == ["ql q_weight=1 seed=0", "ql q_weight=1 seed=1", "ql q_weight=2 seed=0"]
    assert run.data.metrics == [("train/loss", 10, 2.0), ("train/q", 10, 5.0)]
    assert run.data.params == {"hparams.q_weight": "1.0", "algorithm": "ql", "seed": "1"}
    own = {"jaxdiff.run": "study_7", "jaxdiff.member": "a1", "jaxdiff.setting": "ql q_weight=1"}
    assert run.data.tags == own | {"jaxdiff.step.train": "10"}
    assert run.info.status == "FINISHED"


def test_mlflow_resume_goes_on_with_the_same_runs_and_has_each_row_once(server):
    for steps in ((10, 20, 30), (20, 30, 40)):  # killed after 30, and the checkpoint was of 10
        log = MlflowFanout("e", MEMBERS, run_id="study")
        for step in steps:
            log.write(step, {"loss": np.full(3, step, float)}, "train")
            log.write(step, {"score": np.full(3, -step, float)}, "eval")
        log.close()
    assert len(server.runs) == 3
    for run in server.runs.values():
        assert [row[1:] for row in run.data.metrics if row[0] == "train/loss"] == [(s, s) for s in (10, 20, 30, 40)]
        assert [row[1] for row in run.data.metrics if row[0] == "eval/score"] == [10, 20, 30, 40]
    log = MlflowFanout("e", MEMBERS, run_id="another")
    log.write(10, {"loss": np.zeros(3)}, "train")
    log.close()
    assert len(server.runs) == 6


@pytest.mark.parametrize(
    ("error", "last"), [(RestException("no such run"), [30, 10, 30]), (MlflowException("gone"), [20, 10, 10])]
)
def test_mlflow_refusing_a_member_concerns_it_alone_and_not_answering_concerns_all(
    server, caplog, monkeypatch, error, last
):
    monkeypatch.setattr(MlflowFanout, "THREADS", 1)  # members in their order
    log = MlflowFanout("e", MEMBERS)
    for step in (10, 20, 30):
        if step == 20:
            server.refuses = {named(server)["ql q_weight=1 seed=1"].info.run_id: error}
        log.write(step, {"loss": np.zeros(3)})
        log._threads[0].submit(int).result()  # the row is sent
    log.close()
    assert [run.data.metrics[-1][1] for run in server.runs.values()] == last
    whom = "ql q_weight=1 seed=1" if isinstance(error, RestException) else "all members"
    assert [record.message for record in caplog.records] == [
        f"MLflow gets no more rows from update 20 on of {whom}: {error}"
    ]


def test_mlflow_without_an_answer_says_what_to_set(server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://here:1")

    def refuse(name):
        raise MlflowException("nobody\nat home")

    monkeypatch.setattr(server, "get_experiment_by_name", refuse)
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI='http://here:1', says: nobody Give the address"):
        MlflowFanout("e", MEMBERS)
    assert MlflowFanout.RETRIES[0] not in os.environ


def test_missing_mlflow_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ImportError, match=r'pip install "jaxdiff\[mlflow\]"'):
        MlflowFanout("e", MEMBERS)
