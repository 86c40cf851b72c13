"use strict";

// Counts what other thresholds on the pair would keep and exclude, as `safetyfilter decide` does: from the cells between
// thresholds, in which it makes no difference which score a sample has exactly.

(() => {
  const { data, draw, place, planeFigure, whole } = report;
  const trial = data.trial;
  if (!trial) {
    draw("plane-figure", planeFigure(null))();
    return;
  }
  const columns = trial.grids[1].values.length + 1;
  const copy = (choice) => structuredClone(choice);
  let choice = copy(trial.policy); // places in the grids: thresholds; alone; cuts, null where the threshold itself cuts

  function shareText(count, total) {
    if (!total) return "-";
    if (count === 0 || count === total) return count ? "100 %" : "0 %";
    const tenths = Math.floor((2000 * count + total) / (2 * total));
    if (tenths < 1) return "< 0.1 %";
    return tenths > 999 ? "> 99.9 %" : `${Math.floor(tenths / 10)}.${tenths % 10} %`;
  }

  const cutOf = (axis) => (choice.alone[axis] ? choice.cuts[axis] ?? choice.thresholds[axis] : null);

  function outcome() {
    const [x, y] = choice.thresholds;
    const [cutX, cutY] = [cutOf(0), cutOf(1)];
    const found = { co_occurrence: 0, explicit: 0, minor: 0 };
    let kept = 0;
    trial.scored.forEach((count, cell) => {
      const row = Math.floor(cell / columns);
      const column = cell % columns; // a cell reaches the thresholds whose places are below its own
      const both = row > x && column > y;
      const first = cutX !== null && row > cutX;
      const second = cutY !== null && column > cutY;
      if (both) found.co_occurrence += count;
      if (first) found.explicit += count;
      if (second) found.minor += count;
      if (!both && !first && !second) kept += trial.free[cell];
    });
    return { ...trial.reasons, ...found, kept, excluded: trial.seen - kept };
  }

  // TOML as `Policy.to_toml` writes it.
  const hidden = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;
  const escaped = (mark) => {
    const code = mark.codePointAt(0);
    return code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
  };
  const quoted = (name) => JSON.stringify(name).replace(hidden, escaped);
  const key = (name) => (/^[A-Za-z0-9_-]*[A-Za-z0-9][A-Za-z0-9_-]*$/.test(name) ? name : quoted(name));
  const same = () => JSON.stringify(choice) === JSON.stringify(trial.policy);

  function rule(entry) {
    if (entry.axis === null) return trial.exclude[entry.signal];
    if (!choice.alone[entry.axis]) return "false";
    const cut = choice.cuts[entry.axis];
    return cut === null ? "true" : trial.grids[entry.axis].written[cut];
  }

  function toml() {
    if (same()) return trial.toml;
    const { signals, thresholds, grids } = trial;
    const written = (entry) => (entry.axis === null ? entry.written : grids[entry.axis].written[choice.thresholds[entry.axis]]);
    return [
      ...(signals ? ["[signals]", `explicit = ${quoted(signals[0])}`, `minor = ${quoted(signals[1])}`, ""] : []),
      "[thresholds]",
      ...thresholds.map((entry) => `${key(entry.signal)} = ${written(entry)}`),
      "",
      "[exclude]              # beyond the co-occurrence rule, which always holds",
      ...thresholds.map((entry) => `${key(entry.signal)} = ${rule(entry)}`),
      "",
    ].join("\n");
  }

  const along = () => ({
    thresholds: choice.thresholds.map((at, axis) => trial.grids[axis].places[at]),
    cuts: [0, 1].map((axis) => (cutOf(axis) === null ? null : trial.grids[axis].places[cutOf(axis)])),
  });
  const redraw = draw("plane-figure", planeFigure(along));
  const rows = [...document.querySelectorAll("[data-count]")];
  const inUse = outcome();
  let saying = 0;

  function show() {
    const counts = outcome();
    rows.forEach((row) => {
      const name = row.dataset.count;
      const change = counts[name] - inUse[name];
      row.querySelector("[data-tried]").textContent = whole.format(counts[name]);
      row.querySelector("[data-share]").textContent = shareText(counts[name], trial.seen);
      row.querySelector("[data-change]").textContent = change ? `${change > 0 ? "+" : "−"}${whole.format(Math.abs(change))}` : "0";
    });
    [0, 1].forEach((axis) => {
      const grid = trial.grids[axis];
      const at = choice.thresholds[axis];
      place(`slider${axis}`).value = at;
      place(`slider${axis}`).setAttribute("aria-valuetext", grid.shown[at]);
      place(`number${axis}`).value = grid.shown[at];
      place(`alone${axis}`).value = !choice.alone[axis] ? "no" : choice.cuts[axis] === null ? "threshold" : "cut";
      place(`cut-setting${axis}`).hidden = !choice.alone[axis] || choice.cuts[axis] === null;
      place(`cut${axis}`).value = choice.cuts[axis] === null ? "" : grid.shown[choice.cuts[axis]];
    });
    document.querySelectorAll("[data-preset]").forEach((button) => {
      const preset = button.dataset.preset ? trial.presets[button.dataset.preset] : trial.policy;
      button.setAttribute("aria-pressed", JSON.stringify(choice) === JSON.stringify(preset));
    });
    place("toml").textContent = toml();
    redraw();
    clearTimeout(saying); // a moving slider is told of once it rests
    saying = setTimeout(() => {
      place("live").textContent =
        `${whole.format(counts.kept)} kept (${shareText(counts.kept, trial.seen)}), ` +
        `${whole.format(counts.excluded)} excluded (${shareText(counts.excluded, trial.seen)})`;
    }, 250);
  }

  function nearest(axis, text, before) {
    const value = Number(text);
    if (text.trim() === "" || !Number.isFinite(value)) return before;
    const { values } = trial.grids[axis];
    return values.reduce((best, each, at) => (Math.abs(each - value) < Math.abs(values[best] - value) ? at : best), 0);
  }

  // A number box: what is typed becomes the nearest threshold; the arrow keys go from one threshold to the next.
  function numberBox(id, axis, read, write) {
    const box = place(id);
    const { values } = trial.grids[axis];
    box.addEventListener("change", () => {
      write(nearest(axis, box.value, read()));
      show();
    });
    box.addEventListener("keydown", (event) => {
      const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      write(Math.min(values.length - 1, Math.max(0, nearest(axis, box.value, read()) + step)));
      show();
    });
  }

  [0, 1].forEach((axis) => {
    const slider = place(`slider${axis}`);
    slider.max = trial.grids[axis].values.length - 1;
    slider.addEventListener("input", () => {
      choice.thresholds[axis] = Number(slider.value);
      show();
    });
    numberBox(`number${axis}`, axis, () => choice.thresholds[axis], (at) => { choice.thresholds[axis] = at; });
    numberBox(`cut${axis}`, axis, () => choice.cuts[axis], (at) => { choice.cuts[axis] = at; });
    place(`alone${axis}`).addEventListener("change", (event) => {
      choice.alone[axis] = event.target.value !== "no";
      choice.cuts[axis] = event.target.value === "cut" ? choice.thresholds[axis] : null;
      show();
    });
  });
  const group = document.querySelector(".presets");
  Object.keys(trial.presets).forEach((name) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.preset = name;
    button.textContent = name;
    group.append(button);
  });
  group.addEventListener("click", (event) => {
    const name = event.target.dataset?.preset;
    if (name === undefined) return;
    choice = copy(name ? trial.presets[name] : trial.policy);
    show();
  });
  show();
})();
