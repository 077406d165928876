"""The player in a real browser: `pytest -m browser`, which needs a chromium binary."""

import html
import json
import re
import shutil
import subprocess

import pytest

from jaxdiff.io import plans

pytestmark = pytest.mark.browser

PROBE = """
<script>
window.addEventListener("load", function () {
  var player = document.querySelector(".player"), slider = player.querySelector("input");
  var drawn = function () { return player.querySelector(".beads").getAttribute("d"); };
  var said = function () { return player.querySelector("output").textContent; };
  var last = [drawn(), said()];
  slider.value = 0;
  slider.dispatchEvent(new Event("input"));
  var first = [drawn(), said()];
  player.querySelector("button").click();
  setTimeout(function () {
    document.documentElement.setAttribute("data-probe", JSON.stringify({
      scroll: document.documentElement.scrollWidth, inner: window.innerWidth, shown: player.offsetHeight,
      last: last, first: first, played: Number(slider.value), button: player.querySelector("button").textContent,
      requests: performance.getEntriesByType("resource").length,
      paper: getComputedStyle(document.body).backgroundColor
    }));
  }, 1000);
});
</script>
"""


def probe(page, tmp_path, width, scheme):
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert binary, "no chromium on the PATH; install one or leave out -m browser"
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", PROBE + "</body>"))
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += f" --disable-component-update --disable-sync --window-size={width},1300 --virtual-time-budget=4000"
    flags += f" --blink-settings=preferredColorScheme={scheme} --user-data-dir={tmp_path / 'profile'} --dump-dom"
    done = subprocess.run(
        [binary, *flags.split(), path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(html.unescape(re.search('data-probe="([^"]*)"', done.stdout)[1]))


@pytest.mark.parametrize("width", [600, 1280])
def test_the_player_plays_and_follows_its_slider(planned, tmp_path, width):
    found = probe(plans.page(planned()), tmp_path, width, scheme=1)
    assert found["shown"] > 100 and found["scroll"] <= found["inner"] and found["requests"] == 0
    assert found["last"][1] == "after 20 of 20 network calls" and found["first"][1] == "after 0 of 20 network calls"
    assert found["first"][0].count("M") == found["last"][0].count("M") == 32
    assert found["first"][0] != found["last"][0]
    assert 0 < found["played"] < 20 and found["button"] == "Pause"


def test_dark_screens_get_dark_paper(planned, tmp_path):
    light, dark = (probe(plans.page(planned()), tmp_path, 800, scheme)["paper"] for scheme in (1, 0))
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (light, dark)]
    assert brightness[0] > 600 and brightness[1] < 150
