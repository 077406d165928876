// Inlined into the page: hide or show a setting, copy a command.
document.querySelectorAll("[data-toggle]").forEach(function (button) {
  button.addEventListener("click", function () {
    var shown = button.getAttribute("aria-pressed") !== "true";
    document.querySelectorAll('[data-toggle="' + button.dataset.toggle + '"]').forEach(function (twin) {
      twin.setAttribute("aria-pressed", String(shown));
    });
    document.querySelectorAll('[data-series="' + button.dataset.toggle + '"]').forEach(function (mark) {
      mark.classList.toggle("off", !shown);
    });
  });
});
document.querySelectorAll("[data-copy]").forEach(function (button) {
  button.addEventListener("click", function () {
    var code = button.parentNode.querySelector("pre");
    var range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    var said = function () { button.textContent = "Copied"; setTimeout(function () { button.textContent = "Copy"; }, 1500); };
    if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(said, function () {});
    else if (document.execCommand("copy")) said();
  });
});
