import logging
import threading
import uuid

import fsspec
from pack_folder import Worker, assert_whole_to, state
import pytest

from jaxdiff.io import cards, files
from jaxdiff.io.checkpoint import Checkpoints
from jaxdiff.io.locks import held
from jaxdiff.io.remote import Mirror, scratch_of
from jaxdiff.io.storage import Storage, is_remote
from jaxdiff.io.uploads import Uploads


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(files.os, "fsync", lambda handle: None)


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    return f"memory://{uuid.uuid4().hex}/study" if request.param == "memory" else f"file://{tmp_path}/bucket/study"


@pytest.fixture
def memory():
    return f"memory://{uuid.uuid4().hex}/study"


@pytest.fixture
def mirror(tmp_path, memory):
    return Mirror(memory, tmp_path / "here")


def prepared(mirror):
    for name in ("facts.json", "packs.json", "run.json"):
        files.write_json_atomic(mirror.local.path / name, {"name": name})
        mirror.push(name)
    return mirror


def elsewhere(mirror, tmp_path):
    """The run on another machine."""
    return Mirror(mirror.remote, tmp_path / uuid.uuid4().hex)


def pulled(mirror, tmp_path):
    other = elsewhere(mirror, tmp_path)
    other.pull_pack("p")
    return other.local.pack("p")


def trained(mirror, *scores, **kwargs):
    """A worker that pushed after each of its checkpoints."""
    worker = Worker(mirror.local.pack("p"), **kwargs)
    for score in scores:
        worker.advance(score)
        mirror.push_pack("p")
    return worker


class Breaking:
    """Makes the n-th change of the storage fail, and all after it: the process is gone."""

    def __init__(self, monkeypatch, storage, after):
        self.left, self.is_broken = after, False
        for name in ("put_file", "pipe_file", "rm"):
            monkeypatch.setattr(storage._files, name, self.counted(getattr(storage._files, name)))

    def counted(self, change):
        def counted(*args, **kwargs):
            self.left -= 1
            if self.left < 0:
                self.is_broken = True
                raise OSError("connection lost")
            return change(*args, **kwargs)

        return counted


def test_urls_are_told_from_folders():
    assert all(map(is_remote, ("s3://b/x", "gs://b", "memory://x", "file:///x", "simplecache::s3://b/x")))
    assert not any(map(is_remote, ("runs/x", "/runs/x", "./s3:x", "~/runs", "")))


def test_scratch_is_one_per_url(tmp_path):
    given = {"JAXDIFF_SCRATCH": str(tmp_path)}
    assert scratch_of("s3://b/study", given) == scratch_of("s3://b/study/", given)
    assert scratch_of("s3://b/study", given) != scratch_of("s3://c/study", given)
    assert scratch_of("s3://b/study", given).parent == tmp_path


def test_a_pack_goes_on_elsewhere_and_finishes(url, tmp_path):
    mirror = prepared(Mirror(url, tmp_path / "here"))
    trained(mirror, None, None)
    other = elsewhere(mirror, tmp_path)
    other.pull_study()
    other.pull_pack("p")
    worker = assert_whole_to(other.local.pack("p"), 20)
    assert other.finished() == set()
    worker.finish()
    other.push_pack("p")
    assert other.finished() == {"p"}
    last = elsewhere(mirror, tmp_path)
    last.pull_results()
    pack = last.local.pack("p")
    assert pack.is_done()
    assert list(files.read_npz(pack.train)["step"]) == [10, 20, 30, 40]
    assert not pack.checkpoints.exists()
    last.pull_checkpoints("p")
    assert Checkpoints(pack.checkpoints).latest_step() == 40
    assert not any("tables" in name or "tmp" in name for name in last.storage.list())


def test_remote_keeps_the_steps_that_the_worker_keeps(mirror, tmp_path):
    worker = trained(mirror, 1.0, 9.0, 2.0, 3.0, 4.0)
    found = {name.split("/")[3] for name in mirror.storage.list("packs/p/checkpoints")}
    assert found == {"20", "40", "50"}
    assert sorted(worker.checkpoints.steps()) == [20, 40, 50]
    assert {name.split("/")[3].partition("-")[0] for name in mirror.storage.list("packs/p/tables")} == found
    pack = pulled(mirror, tmp_path)
    assert cards.whole_steps(pack.checkpoints) == [20, 50]  # the newest, and the best so that it stays the best
    assert Checkpoints(pack.checkpoints).best_step() == 20


def test_what_has_not_changed_is_not_pushed_again(mirror, monkeypatch):
    trained(mirror, None, None)
    counter = Breaking(monkeypatch, mirror.storage, after=10**6)
    mirror.push_pack("p")
    assert counter.left == 10**6


def test_killed_between_any_two_files_loses_no_checkpoint_and_no_row(tmp_path, monkeypatch):
    source = Mirror(f"memory://{uuid.uuid4().hex}/study", tmp_path / "here")
    worker = trained(source, None)  # 10 is there
    worker.advance()
    for step in (20, 40):  # at 40 with done.json: 30 and 40 are new, 10 and 20 go
        if step == 40:
            source.push_pack("p")
            worker.finish()
        before = {name: source.storage.read([name])[name] for name in source.storage.list()}
        seen, after = set(), 0
        while True:
            copy = Mirror(f"memory://{uuid.uuid4().hex}/study", tmp_path / f"{step}-{after}")
            for name, content in before.items():
                copy.storage.write(name, content)
            broken = Mirror(source.remote, source.local.path)  # a fresh memory of what has been pushed
            broken.storage._root = copy.storage._root
            broken.pack("p")._pushed.update(source.pack("p")._pushed)
            with monkeypatch.context() as patch:
                breaking = Breaking(patch, broken.storage, after)
                try:
                    broken.push_pack("p")
                except OSError:
                    assert breaking.is_broken
            if copy.finished():
                copy.pull_pack("p")
                assert list(files.read_npz(copy.local.pack("p").train)["step"]) == [10, 20, 30, 40]
                seen.add("done")
            else:
                copy.pull_pack("p")
                newest = max(cards.whole_steps(copy.local.pack("p").checkpoints))
                assert newest >= step // 2
                rows = list(files.read_npz(copy.local.pack("p").train)["step"])
                assert rows[: newest // 10] == list(range(10, newest + 1, 10))
                if newest not in seen:
                    assert_whole_to(copy.local.pack("p"), newest).checkpoints.close()
                seen.add(newest)
            if not breaking.is_broken:
                break
            after += 1
        assert after > 5
        assert seen == ({10, 20} if step == 20 else {20, 30, 40, "done"})


def test_a_slower_worker_takes_nothing_from_a_faster_one(mirror, tmp_path):
    slow = elsewhere(mirror, tmp_path)
    slower = trained(slow, None)
    trained(mirror, None, None, None, writer="b")
    slower.advance()
    slow.push_pack("p")  # 20, after 30 is there
    assert_whole_to(pulled(mirror, tmp_path), 30)
    slow_again = assert_whole_to(slow.local.pack("p"), 20)
    faster = assert_whole_to(mirror.local.pack("p"), 30)
    faster.finish()
    mirror.push_pack("p")
    slow_again.advance()
    slow.push_pack("p")
    pack = pulled(mirror, tmp_path)
    assert pack.is_done()
    assert list(files.read_npz(pack.train)["step"]) == [10, 20, 30, 40]


@pytest.mark.parametrize("name", ["card.json", "_CHECKPOINT_METADATA", "default/manifest.ocdbt", "default/_METADATA"])
def test_a_step_of_files_of_two_workers_is_passed_over_or_whole(mirror, tmp_path, name, caplog):
    trained(mirror, None, None)
    other = Mirror(f"memory://{uuid.uuid4().hex}/study", tmp_path / "other")
    trained(other, None, None, writer="b")
    path = f"packs/p/checkpoints/20/{name}"
    content = other.storage.read([path])[path]
    is_same = content == mirror.storage.read([path])[path]
    mirror.storage.write(path, content)
    with caplog.at_level(logging.WARNING, logger="absl"):
        pack = pulled(mirror, tmp_path)
    assert_whole_to(pack, 20 if is_same else 10)
    assert is_same or "checkpoint 20 of" in caplog.text


def test_content_that_changed_at_equal_size_is_passed_over(mirror, tmp_path, caplog):
    trained(mirror, None, None)
    path = "packs/p/checkpoints/20/default/manifest.ocdbt"
    content = mirror.storage.read([path])[path]
    mirror.storage.write(path, content[:-1] + bytes([content[-1] ^ 1]))
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert_whole_to(pulled(mirror, tmp_path), 10)
    assert "checkpoint 20 of" in caplog.text


def test_results_of_an_unfinished_pack_are_those_of_its_newest_checkpoint(mirror, tmp_path):
    prepared(mirror)
    trained(mirror, None, None)
    other = elsewhere(mirror, tmp_path)
    other.pull_results()
    assert list(files.read_npz(other.local.pack("p").train)["step"]) == [10, 20]
    assert files.read_json(other.local.run_json) == {"name": "run.json"}
    assert other.local.list_packs() == ["p"]


def test_a_copy_that_is_ahead_stays_and_one_of_another_start_goes(mirror, tmp_path):
    prepared(mirror)
    worker = trained(mirror, None)
    worker.advance()  # not pushed
    Mirror(mirror.remote, mirror.local.path).pull_results()
    mirror.pull_pack("p")
    assert_whole_to(mirror.local.pack("p"), 20)
    mirror.storage.remove("packs")
    trained(elsewhere(mirror, tmp_path), None, writer="b")
    mirror.pull_pack("p")
    assert_whole_to(mirror.local.pack("p"), 10)
    mirror.storage.remove("packs")
    mirror.pull_results()
    assert mirror.local.list_packs() == []


def test_a_pack_that_is_worked_on_here_is_left_alone(mirror, tmp_path):
    prepared(mirror)
    trained(elsewhere(mirror, tmp_path), None, None)
    trained(mirror, None, writer="b")
    with held(mirror.local.pack("p").lock):
        Mirror(mirror.remote, mirror.local.path).pull_results()
    assert cards.whole_steps(mirror.local.pack("p").checkpoints) == [10]


def test_failed_json_comes_and_goes(mirror, tmp_path):
    pack = mirror.local.pack("p")
    worker = trained(mirror, None)
    files.write_json_atomic(pack.failed, {"error": "no luck"})
    mirror.push_pack("p")
    assert "packs/p/failed.json" in mirror.storage.list()
    pack.failed.unlink()
    worker.finish()
    mirror.push_pack("p")
    assert "packs/p/failed.json" not in mirror.storage.list()


def test_a_failed_upload_is_made_up_for_and_the_last_one_raises(mirror, tmp_path, monkeypatch, caplog):
    worker = Worker(mirror.local.pack("p"))
    with Uploads(mirror, "p") as uploads, caplog.at_level(logging.WARNING, logger="absl"):
        with monkeypatch.context() as patch:
            Breaking(patch, mirror.storage, after=3)
            worker.advance()
            uploads.after(10)
            uploads._queued.result()
        assert "tried again at the next checkpoint" in caplog.text
        worker.advance()
        uploads.after(20)
        uploads._queued.result()
        assert_whole_to(pulled(mirror, tmp_path), 20)
        worker.finish()
        with monkeypatch.context() as patch:
            Breaking(patch, mirror.storage, after=3)
            with pytest.raises(OSError, match="check the connection"):
                uploads.finish()
        uploads.finish()
    assert pulled(mirror, tmp_path).is_done()


def test_uploads_wait_for_the_card_and_end_without_it(mirror, tmp_path):
    worker = Worker(mirror.local.pack("p"))
    with Uploads(mirror, "p") as uploads:
        uploads.after(10)  # before it is on disk
        worker.advance()
        uploads._queued.result()
        assert_whole_to(pulled(mirror, tmp_path), 10)
        uploads.after(20)  # never comes
    assert not any(thread.name.startswith("upload") for thread in threading.enumerate())


def test_a_step_that_is_being_written_is_not_pushed(mirror):
    trained(mirror, None)
    folder = mirror.local.pack("p").checkpoints / "20"
    folder.mkdir()
    (folder / "part").write_bytes(b"x")
    mirror.push_pack("p")
    assert not any("/20/" in name for name in mirror.storage.list())


def test_a_scratch_folder_with_something_else_is_refused(mirror, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="mirrors nothing; set JAXDIFF_SCRATCH to another folder"):
        Mirror(mirror.remote, tmp_path / "mine")
    with pytest.raises(ValueError, match="mirrors memory://.*, not memory://else"):
        Mirror("memory://else", mirror.local.path)


def test_errors_say_what_to_do(mirror, monkeypatch):
    with pytest.raises(FileNotFoundError, match="has no run.json; give the --workdir of a run") as raised:
        mirror.pull_study()
    assert raised.value.filename == mirror.remote
    with pytest.raises(ValueError, match="give a folder, or a URL"):
        Storage("nonsense://bucket/x")
    monkeypatch.setattr(mirror.storage._files, "pipe_file", refuse)
    with pytest.raises(PermissionError, match="give this machine credentials"):
        mirror.check_writable()


def refuse(*args, **kwargs):
    raise PermissionError("Access Denied")


def test_a_missing_library_is_named_with_its_install_line(monkeypatch):
    def missing(*args, **kwargs):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ImportError, match=r"Install s3fs to access S3\); run: pip install 'jaxdiff\[storage\]'"):
        Storage("s3://bucket/x")
    with pytest.raises(ImportError, match="run: pip install adlfs"):
        Storage("az://bucket/x")


def test_restored_state_is_the_saved_one(mirror, tmp_path):
    trained(mirror, None, None)
    restored = Checkpoints(pulled(mirror, tmp_path).checkpoints).restore(state(0))
    assert int(restored["step"]) == 20
