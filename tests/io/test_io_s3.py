"""The same against S3's interface: moto's server in this process, reached through s3fs."""

import logging

from pack_folder import Worker, assert_whole_to
import pytest

from jaxdiff.io import files
from jaxdiff.io.remote import Mirror
from jaxdiff.io.storage import Storage
from jaxdiff.io.uploads import Uploads

# The libraries of the storage leave what they like to the collector.
pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def server():
    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    files_there = s3fs.S3FileSystem()
    if not files_there.exists("bucket"):
        files_there.mkdir("bucket")
    yield "s3://bucket"
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_pack_goes_on_elsewhere_and_finishes(bucket, tmp_path):
    mirror = Mirror(f"{bucket}/runs/study", tmp_path / "here")
    mirror.check_writable()
    for name in ("facts.json", "packs.json", "run.json"):
        files.write_json_atomic(mirror.local.path / name, {"name": name})
        mirror.push(name)
    worker = Worker(mirror.local.pack("p"))
    with Uploads(mirror, "p") as uploads:
        for score in (9.0, 1.0, 2.0, 3.0):
            worker.advance(score)
            uploads.after(worker.step)
            uploads._queued.result()
    assert {name.split("/")[3] for name in mirror.storage.list("packs/p/checkpoints")} == {"10", "30", "40"}
    other = Mirror(mirror.remote, tmp_path / "there")
    other.pull_study()
    other.pull_pack("p")
    worker = assert_whole_to(other.local.pack("p"), 40)
    worker.num_updates = 60
    worker.finish()
    assert worker.checkpoints.best_step() == 10
    with Uploads(other, "p") as uploads:
        uploads.finish()
    assert other.finished() == {"p"}
    mirror.pull_results()
    assert mirror.local.pack("p").is_done()
    assert list(files.read_npz(mirror.local.pack("p").train)["step"]) == [10, 20, 30, 40, 50, 60]
    names = mirror.storage.list("packs/p")
    assert {name.split("/")[3] for name in names if "/checkpoints/" in name} == {"10", "50", "60"}
    assert not any("/tables/" in name or "check-" in name for name in mirror.storage.list())


def test_a_neighbour_with_a_longer_name_is_left_alone(bucket, tmp_path):
    storage, neighbour = Storage(f"{bucket}/a"), Storage(f"{bucket}/ab")
    for one in (storage, neighbour):
        one.write("packs/p/x", b"1")
        one.write("packs/pq/x", b"1")
    assert list(storage.list("packs/p")) == ["packs/p/x"]
    storage.remove("packs/p", "packs/never")
    assert list(storage.list()) == ["packs/pq/x"]
    assert len(neighbour.list()) == 2


def test_errors_say_what_to_do(bucket, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no such bucket or file; check the name"):
        Mirror("s3://no-such-bucket/x", tmp_path / "a").check_writable()
    with pytest.raises(FileNotFoundError, match="has no run.json"):
        Mirror(f"{bucket}/empty", tmp_path / "b").pull_results()


def test_missing_credentials_say_so(bucket, tmp_path, monkeypatch):
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(PermissionError, match="give this machine credentials"):
        Storage(f"{bucket}/x").check_writable()


def test_a_server_that_is_not_there_says_so(bucket, tmp_path, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(OSError, match="check the connection and the URL"):
        Storage(f"{bucket}/x").check_writable()
