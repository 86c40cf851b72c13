// A threshold: a slider over the thresholds that were counted, and a box for any number. Both have names that a screen
// reader says; ipywidgets' own sliders have none, and tell the place among the thresholds instead of the threshold.

let made = 0;

function isDark(element) {
  for (let node = element; node; node = node.parentElement) {
    const parts = getComputedStyle(node).backgroundColor.match(/[\d.]+/g)?.map(Number);
    if (parts && (parts.length < 4 || parts[3] > 0.5)) {
      return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] < 110;
    }
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function shows(plot, corners) {
  const shapes = plot.layout.shapes ?? [];
  const there = plot.querySelectorAll(".shapelayer path").length;
  const alike = ([x, y], at) => Math.abs(x - shapes[at].x0) < 1e-6 && Math.abs(y - shapes[at].y0) < 1e-6;
  return there === corners.length && shapes.length === corners.length && corners.every(alike);
}

function element(name, properties) {
  return Object.assign(document.createElement(name), properties);
}

function render({ model, el }) {
  const id = `safetyfilter-threshold-${(made += 1)}-${model.get("name")}`;
  const label = element("label", { htmlFor: id });
  const slider = element("input", { type: "range", id, min: 0, step: 1 });
  const box = element("input", { type: "text", inputMode: "decimal", size: 10, autocomplete: "off" });
  const note = element("output", { className: "note", htmlFor: id });
  const said = element("span", { className: "said" });
  said.setAttribute("role", "status");
  el.classList.add("safetyfilter-threshold");
  for (const input of [slider, box]) {
    input.dataset.lmSuppressShortcuts = "true"; // a key here is not one of the notebook's commands
  }
  el.append(label, slider, box, note, said);

  function show() {
    const [texts, place, name] = [model.get("texts"), model.get("place"), model.get("name")];
    label.textContent = `Threshold of ${name}`;
    box.setAttribute("aria-label", `Threshold of ${name}, as a number`);
    slider.max = texts.length - 1;
    slider.value = place;
    slider.setAttribute("aria-valuetext", texts[place]);
    box.value = texts[place];
    slider.disabled = box.disabled = model.get("disabled");
    note.textContent = model.get("note");
    said.textContent = model.get("said");
  }
  let figure = null;
  function find() {
    figure = el.closest(".safetyfilter-explorer")?.querySelector(".safetyfilter-figure");
    if (figure) {
      figure.setAttribute("role", "img");
      figure.setAttribute("aria-label", "Scores of both signals as a density; the tables hold what the policy does");
      size.observe(figure);
      page.observe(figure, { childList: true, subtree: true });
    }
  }
  function look() {
    if (!figure) {
      find();
    }
    const [room, dark] = [figure?.clientWidth, isDark(el)];
    if (room && (room !== model.get("room") || dark !== model.get("dark"))) {
      model.set("room", room);
      model.set("dark", dark);
      model.save_changes();
    }
  }
  // A change that comes while Plotly draws the figure for the first time is lost: so it is sent anew once that is done.
  function drawn(event) {
    if (el.closest(".safetyfilter-explorer")?.contains(event.detail.element)) {
      model.send({ drawn: true });
    }
  }
  // Others may be lost while it draws something else, on a busy machine: so what is there is looked at a second later.
  let check = 0;
  function lookAgain() {
    clearTimeout(check);
    check = setTimeout(() => {
      const plot = el.closest(".safetyfilter-explorer")?.querySelector(".js-plotly-plot");
      if (plot?.layout && !shows(plot, model.get("areas"))) {
        model.send({ drawn: true });
        lookAgain();
      }
    }, 1000);
  }
  slider.addEventListener("input", () => {
    slider.setAttribute("aria-valuetext", model.get("texts")[slider.value]);
    box.value = model.get("texts")[slider.value];
    model.set("place", Number(slider.value));
    model.save_changes();
  });
  function typed() {
    if (box.value !== model.get("texts")[model.get("place")]) {
      model.send({ typed: box.value });
    }
  }
  box.addEventListener("change", typed);
  box.addEventListener("keydown", (event) => event.key === "Enter" && typed());
  model.on("change", show);
  model.on("msg:custom", show);
  model.on("change:areas", lookAgain);
  document.addEventListener("plotlywidget-after-render", drawn);
  show();

  // Once it is in the page, and whenever the room for the figure or the page's theme changes.
  const size = new ResizeObserver(look);
  size.observe(el);
  const page = new MutationObserver(look);
  page.observe(document.body, { attributes: true });
  page.observe(document.documentElement, { attributes: true });
  return () => {
    size.disconnect();
    page.disconnect();
    document.removeEventListener("plotlywidget-after-render", drawn);
    clearTimeout(check);
    model.off("change", show);
    model.off("change:areas", lookAgain);
    model.off("msg:custom", show);
  };
}

export default { render };
