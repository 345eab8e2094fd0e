for (const steps of document.querySelectorAll(".steps")) {
  const slider = steps.querySelector("input"), figures = steps.querySelectorAll("figure");
  if (!slider) continue;
  const show = () => figures.forEach((figure, i) => {
    figure.hidden = i !== slider.valueAsNumber;
    if (!figure.hidden) slider.setAttribute("aria-valuetext", figure.querySelector("figcaption").textContent);
  });
  slider.addEventListener("input", show);
  slider.hidden = false;
  show();
}
