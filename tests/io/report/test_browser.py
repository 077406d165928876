"""The page in a real browser: `pytest -m browser`, which needs a chromium binary."""

import html
import json
import re
import shutil
import subprocess

import pytest
from study_folder import make_study

from jaxdiff.io.report import build_report

pytestmark = pytest.mark.browser

PROBE = """
<script>
window.addEventListener("load", function () {
  var button = document.querySelector("[data-toggle]");
  var shown = function () {
    return document.querySelectorAll('[data-series="' + button.dataset.toggle + '"]:not(.off)').length;
  };
  var before = shown();
  button.click();
  var hidden = shown();
  button.click();
  var small = Array.from(document.querySelectorAll("svg text")).filter(function (text) {
    var box = text.getBoundingClientRect();
    return box.height > 0 && box.height < 10;
  });
  var seen = Array.from(document.querySelectorAll("section")).every(function (part) { return part.offsetHeight > 60; });
  window.parent.postMessage(JSON.stringify({
    inner: window.innerWidth, scroll: document.documentElement.scrollWidth, small: small.length, seen: seen,
    before: before, hidden: hidden, after: shown(), requests: performance.getEntriesByType("resource").length,
    paper: getComputedStyle(document.body).backgroundColor
  }), "*");
});
</script>
"""
# A browser window cannot be narrower than about 500 pixels; a frame can.
FRAME = """<!doctype html><meta name="color-scheme" content="light dark">
<script>
window.addEventListener("message", function (sent) { document.documentElement.setAttribute("data-probe", sent.data); });
</script>
<iframe src="probed.html" style="width: WIDTHpx; height: 1200px; border: 0"></iframe>
"""


def probe(page, tmp_path, width, scheme):
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert binary, "no chromium on the PATH; install one or leave out -m browser"
    (tmp_path / "probed.html").write_text(page.read_text().replace("</body>", PROBE + "</body>"))
    (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --window-size=1400,1300 --virtual-time-budget=3000"
    flags += f" --blink-settings=preferredColorScheme={scheme} --user-data-dir={tmp_path / 'profile'} --dump-dom"
    done = subprocess.run(
        [binary, *flags.split(), (tmp_path / "frame.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(html.unescape(re.search('data-probe="([^"]*)"', done.stdout)[1]))


@pytest.mark.parametrize("width", [380, 1280])
def test_page_fits_its_window_and_asks_for_nothing(run_folder, tmp_path, width):
    found = probe(build_report(run_folder), tmp_path, width, scheme=1)
    assert found["inner"] == width
    assert found["scroll"] <= found["inner"]
    assert found["requests"] == 0
    assert found["seen"] and found["small"] == 0


def test_legend_hides_and_shows_a_setting(run_folder, tmp_path):
    found = probe(build_report(run_folder), tmp_path, 1280, scheme=1)
    assert found["before"] == found["after"] > 0
    assert found["hidden"] == 0


@pytest.mark.parametrize("width", [380, 1280])
def test_page_of_a_large_study_fits_its_window_and_its_legend_works(tmp_path, width):
    folder = make_study(tmp_path / "run", settings=40, seeds=5, evaluations=20, metrics=14)
    found = probe(build_report(folder), tmp_path, width, scheme=1)
    assert found["scroll"] <= found["inner"] == width
    assert found["seen"] and found["small"] == 0
    assert found["before"] == found["after"] > 0 and found["hidden"] == 0


def test_dark_screens_get_dark_paper(run_folder, tmp_path):
    page = build_report(run_folder)
    light, dark = (probe(page, tmp_path, 800, scheme)["paper"] for scheme in (1, 0))
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (light, dark)]
    assert brightness[0] > 600 and brightness[1] < 150


def test_long_names_do_not_widen_a_narrow_page(tmp_path, make_folder):
    folder = make_folder(tmp_path / "run", label_suffix=" " + "x" * 90, env="e" * 120)
    found = probe(build_report(folder), tmp_path, 380, scheme=1)
    assert found["scroll"] <= found["inner"] == 380
