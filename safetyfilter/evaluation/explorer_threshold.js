// A threshold: a slider over the thresholds that were counted, and a box for any number. Both have names that a screen
// reader says; ipywidgets' own sliders have none, and tell the place among the thresholds instead of the threshold.

let made = 0;

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
  show();
  return () => {
    model.off("change", show);
    model.off("msg:custom", show);
  };
}

export default { render };
