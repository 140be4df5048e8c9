"use strict";
// A pointer over a mark shows what it stands for; a button brings its arm to the fore.
const tip = document.getElementById("tip");
document.addEventListener("pointermove", (event) => {
  const text = event.target.closest?.("[data-tip]")?.dataset.tip;
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const right = event.clientX + 14 + tip.offsetWidth > innerWidth;
  tip.style.left = `${right ? event.clientX - 14 - tip.offsetWidth : event.clientX + 14}px`;
  tip.style.top = `${Math.max(4, event.clientY - tip.offsetHeight - 8)}px`;
});
const buttons = [...document.querySelectorAll("nav button")];
const show = () => {
  const chosen = new Set(
    buttons.filter((b) => b.getAttribute("aria-pressed") === "true").map((b) => b.dataset.arm),
  );
  document.body.classList.toggle("chosen", chosen.size > 0);
  for (const mark of document.querySelectorAll("svg [data-arm], tr[data-arm]"))
    mark.classList.toggle("on", chosen.has(mark.dataset.arm));
};
for (const button of buttons)
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
    show();
  });
// Paper cannot be unfolded.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
