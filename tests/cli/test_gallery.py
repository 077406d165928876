"""`jaxdiff gallery`: a page that needs nothing else, and requests that are refused before anything is written."""

import re
import xml.etree.ElementTree as ElementTree

from page_reader import Reader
import pytest

from jaxdiff.cli import main as cli

ASKED = ("ddim", "euler", "dpmpp_2m", "heun", "ddpm")
PICTURES = ("error", "grids", "guidance", "paths", "schedules")


class GalleryReader(Reader):
    """Also the bold words of captions, by section."""

    def __init__(self):
        super().__init__()
        self.titles, self.section = {}, None

    def handle_starttag(self, tag, attrs):
        super().handle_starttag(tag, attrs)
        if tag == "section":
            self.section = dict(attrs)["id"]

    def handle_data(self, data):
        super().handle_data(data)
        if self.open[-2:] == ["figcaption", "b"]:
            self.titles.setdefault(self.section, []).append(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    out = folder / "new" / "page.html"
    flags = [f"--samplers={','.join(ASKED)}", "--calls=4", "--seed=3", f"--out={out}", f"--svg={folder / 'svg'}"]
    assert cli.main(["gallery", *flags]) == 0
    return out, folder / "svg"


def test_page_is_whole_and_refers_to_nothing_outside(made):
    reader = GalleryReader()
    reader.feed(made[0].read_text(encoding="utf-8"))
    reader.close()
    assert not reader.open
    names = [attrs["id"] for _, attrs in reader.elements if "id" in attrs]
    assert len(names) == len(set(names))
    for tag, attrs in reader.elements:
        assert "src" not in attrs and tag not in ("link", "iframe", "img", "image"), (tag, attrs)
        assert attrs.get("href", "#").startswith("#")
    assert "http" not in made[0].read_text(encoding="utf-8")
    assert "--calls=4 --seed=3" in reader.text


def test_page_shows_every_sampler_once_and_says_which_make_fewer_calls(made):
    reader = GalleryReader()
    reader.feed(made[0].read_text(encoding="utf-8"))
    titles = reader.titles["paths"]
    assert titles[0] == "exact ODE"
    assert sorted(name for title in titles[1:] for name in title.split(" = ")) == sorted(ASKED)
    assert "ddim = euler" in titles
    assert "With one call fewer, since they cannot make 4: heun." in reader.text
    assert {"vp", "flow", "edm"} <= set(reader.titles["schedules"])
    assert {"no label, w = 0", "A, w = 4", "A and B, w = 1, 1"} <= set(reader.titles["guidance"])


def test_single_pictures_are_whole_files(made):
    files = sorted(made[1].iterdir())
    assert [path.stem for path in files] == [f"gallery-{name}" for name in PICTURES]
    for path in files:
        root = ElementTree.parse(path).getroot()
        numbers = root.get("viewBox").split()
        assert root.get("aria-label") and float(numbers[2]) > 600 and float(numbers[3]) > 200
        assert "prefers-color-scheme: dark" in path.read_text(encoding="utf-8")


def test_table_prints_errors_that_fall_with_the_calls_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["gallery", "--table", "--samplers=ddim"]) == 0
    printed = capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in printed.splitlines() if line.startswith("|")]
    heads = [row for row in rows if row[1:] == ["5", "8", "10", "15", "20"]]
    assert [row[0] for row in heads] == ["two blobs", "pinwheel"]
    for row in (row for row in rows if row[0].startswith("DDIM")):
        uniform, karras = zip(*(map(float, cell.split(" / ")) for cell in row[1:]), strict=True)
        assert sorted(uniform, reverse=True) == list(uniform) and sorted(karras, reverse=True) == list(karras)
        assert all(a < b for a, b in zip(uniform, karras, strict=True))


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--samplers=ddim,dppm", "unknown sampler 'dppm'; did you mean 'ddpm'?"),
        ("--samplers=ddim,ddim", "each only once"),
        ("--samplers=", "name at least one"),
        ("--schedule=flwo", "unknown schedule 'flwo'; did you mean 'flow'?"),
        ("--spacing=karas", "unknown spacing 'karas'; did you mean 'karras'?"),
        ("--calls=0", "calls=0; a sampler makes at least 1 network call."),
        ("--seed=-1", "seed=-1"),
        ("--out=file/page.html", "is not a folder"),
        ("--svg=file", "is not a folder"),
        ("--out=.", "is a folder; name a file in it."),
        ("stray", "unexpected argument 'stray'"),
        ("--cals=3", "cals"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(flag, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAXDIFF_DEBUG", raising=False)
    (tmp_path / "file").write_text("")
    assert cli.main(["gallery", flag]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
