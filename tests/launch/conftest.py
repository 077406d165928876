"""A prepared study of nothing, and workers for it."""

from collections.abc import Callable
import json
from pathlib import Path
import shlex
import sys

import pytest

WORKER = [sys.executable, str(Path(__file__).with_name("fake_worker.py"))]


class FakeStudy:
    """A folder with packs.json; see fake_worker.py."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.names = folder, [f"p{index}" for index in range(count)]
        (folder / "todo").mkdir(parents=True)
        (folder / "packs.json").write_text(json.dumps({"packs": [{"id": name} for name in self.names]}))

    def will(self, **words: str) -> None:
        """What the next visits to a pack come to: `p0="fail kill"`."""
        for name, text in words.items():
            (self.folder / "todo" / name).write_text(text)

    def finish(self, *names: str) -> None:
        for name in names:
            (self.folder / "packs" / name).mkdir(parents=True)
            (self.folder / "packs" / name / "done.json").write_text("{}")

    @property
    def finished(self) -> set[str]:
        return {path.parent.name for path in self.folder.glob("packs/*/done.json")}

    @property
    def visits(self) -> list[str]:
        return self._names("visits.txt")

    @property
    def saved(self) -> list[str]:
        return self._names("saved.txt")

    def _names(self, file: str) -> list[str]:
        path = self.folder / file
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[[int], FakeStudy]:
    return lambda count: FakeStudy(tmp_path / "study", count)


@pytest.fixture
def worker() -> list[str]:
    """The words that stand before DIR."""
    return WORKER


@pytest.fixture
def worker_flag() -> str:
    return f"--worker={shlex.join(WORKER)}"
