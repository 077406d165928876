// Inlined into the page: play a denoising.
document.querySelectorAll(".player").forEach(function (player) {
  var frames = player.dataset.frames.split(";"), calls = player.dataset.calls.split(",");
  var thread = player.querySelector(".thread"), beads = player.querySelector(".beads");
  var button = player.querySelector("[data-play]"), slider = player.querySelector("input");
  var said = player.querySelector("output"), timer = null;
  var show = function () {
    var points = frames[slider.value].split(" ");
    thread.setAttribute("d", "M" + points.join("L"));
    beads.setAttribute("d", "M" + points.join("h0M") + "h0");
    said.textContent = "after " + calls[slider.value] + " of " + calls[calls.length - 1] + " network calls";
    slider.setAttribute("aria-valuetext", said.textContent);
  };
  var stop = function () { clearInterval(timer); timer = null; button.textContent = "Play"; };
  button.addEventListener("click", function () {
    if (timer !== null) { stop(); return; }
    if (Number(slider.value) >= frames.length - 1) slider.value = 0;
    show();
    button.textContent = "Pause";
    timer = setInterval(function () {
      slider.value = Number(slider.value) + 1;
      show();
      if (Number(slider.value) >= frames.length - 1) stop();
    }, Math.max(60, 4000 / frames.length));
  });
  slider.addEventListener("input", function () { if (timer !== null) stop(); show(); });
  player.hidden = false;
  show();
});
