"use strict";

// Draws the figures by Plotly, from counts in bins. Colours are those of the page, so that they follow dark and print.

const report = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const whole = new Intl.NumberFormat("en-US");
  const compact = new Intl.NumberFormat("en-US", { notation: "compact" });
  const printed = window.matchMedia("print");
  const drawn = [];

  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); // Plotly reads tags
  const short = (name) => { // what does not fit beside a figure; the text around it has the whole name
    const marks = [...name];
    return plain(marks.length > 40 ? `${marks.slice(0, 39).join("")}…` : name);
  };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const place = (id) => document.getElementById(id);

  // Powers of ten from 1 to a count, or every second or third of them where there is no room for more.
  const powersUpTo = (count, room) => {
    const all = Math.floor(Math.log10(Math.max(count, 1))) + 1;
    const step = Math.ceil(all / room);
    return Array.from({ length: Math.ceil(all / step) }, (_, power) => power * step);
  };
  const isNarrow = (width) => width < 480;

  function draw(id, figureFor) {
    const div = place(id);
    if (!div) return null;
    let busy = false;
    let again = false;
    let shape = null;
    const drawOnce = () => {
      const width = printed.matches ? 640 : Math.max(240, Math.floor(div.clientWidth));
      const figure = figureFor(width);
      const layout = {
        width,
        margin: { l: isNarrow(width) ? 56 : 70, r: 12, t: 10, b: isNarrow(width) ? 76 : 60 },
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: getComputedStyle(document.body).fontFamily, size: isNarrow(width) ? 11 : 12, color: colour("text") },
        hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("line"), font: { color: colour("text") } },
        dragmode: false,
        showlegend: false,
        ...figure.layout,
      };
      const make = shape === isNarrow(width) ? Plotly.react : Plotly.newPlot; // a legend that moved leaves its margin
      shape = isNarrow(width);
      return make(div, figure.data, layout, { displayModeBar: false, scrollZoom: false, doubleClick: false });
    };
    const redraw = async () => { // one drawing at a time: two at once would mix
      again = true;
      if (busy) return;
      busy = true;
      while (again) {
        again = false;
        await drawOnce();
      }
      busy = false;
    };
    drawn.push(redraw);
    return redraw;
  }

  function axis(title, width, further = {}) {
    return {
      title: { text: title, standoff: 8 },
      color: colour("muted"),
      tickfont: { color: colour("text") },
      gridcolor: colour("line"),
      linecolor: colour("line"),
      zeroline: false,
      fixedrange: true,
      ...further,
    };
  }

  function scoreAxis(title, width, further = {}) {
    const shown = data.axis.ticks.map((at, number) => [at, data.axis.texts[number]]);
    return axis(title, width, {
      range: [data.axis.edges[0], data.axis.edges.at(-1)],
      tickvals: shown.map(([at]) => at),
      ticktext: shown.map(([, text]) => text),
      tickangle: 0,
      showgrid: false,
      ...further,
    });
  }

  // A dashed line across the figure, on one in the ground's colour, so that it stands out from bars too.
  const mark = (at) => [["ground", 4, "solid"], ["excluded", 2, "dash"]].map(([shade, thick, dash]) => ({
    type: "line",
    x0: at, x1: at, y0: 0, y1: 1, yref: "paper",
    line: { color: colour(shade), width: thick, dash },
  }));

  // The area that is excluded, as one outline: steps that go down from left to right.
  function excludedArea(choice) {
    const [low, high] = [data.axis.edges[0], data.axis.edges.at(-1)];
    const [x, y] = choice.thresholds;
    const [cutX, cutY] = choice.cuts;
    const steps = [[low, cutY ?? high], [x, Math.min(y, cutY ?? high)], ...(cutX === null ? [] : [[cutX, low]])]
      .sort((one, other) => one[0] - other[0]);
    let level = high;
    const corners = [];
    for (const [from, to] of steps) {
      if (to >= level) continue;
      corners.push([from, level], [from, to]);
      level = to;
    }
    if (!corners.length) return [];
    const path = [...corners, [high, level], [high, high]].map(([a, b], at) => `${at ? "L" : "M"}${a},${b}`).join("");
    const shade = { type: "path", path: `${path}Z`, fillcolor: colour("excluded"), opacity: 0.16, line: { width: 0 }, layer: "above" };
    return [shade, { ...shade, fillcolor: "rgba(0,0,0,0)", opacity: 1, line: { color: colour("excluded"), width: 2 } }];
  }

  function planeFigure(choice) {
    return (width) => {
      const counts = data.plane; // by bin of the first signal, then of the second
      const most = counts.reduce((high, row) => row.reduce((one, other) => Math.max(one, other), high), 0);
      const names = data.axis.bins;
      const across = (make) => names.map((_, y) => names.map((__, x) => make(x, y)));
      const narrow = isNarrow(width);
      const powers = powersUpTo(most, narrow ? 5 : 12);
      const top = Math.log10(Math.max(most, 1));
      const marks = top - powers.at(-1) > 0.3 && powers.length < 5 ? [...powers, top] : powers; // of few samples, the most
      return {
        data: [{
          type: "heatmap",
          x: data.axis.edges,
          y: data.axis.edges,
          z: across((x, y) => (counts[x][y] ? Math.log10(counts[x][y]) : null)),
          text: across((x, y) =>
            `${short(data.pair[0])}: ${names[x]}<br>${short(data.pair[1])}: ${names[y]}<br>${whole.format(counts[x][y])} samples`),
          hoverinfo: "text",
          hoverongaps: false,
          zmin: 0,
          zmax: Math.max(1, Math.log10(Math.max(most, 1))),
          colorscale: [[0, colour("low")], [1, colour("high")]],
          colorbar: {
            title: { text: "samples", side: "top" },
            tickvals: marks,
            ticktext: marks.map((power) => compact.format(Math.round(10 ** power))),
            thickness: 12,
            outlinewidth: 0,
            ...(narrow ? { orientation: "h", y: 1.02, yanchor: "bottom", len: 0.9 } : { len: 0.9 }),
          },
          showscale: most > 0,
        }],
        layout: {
          height: Math.min(620, Math.round(width * (narrow ? 1.2 : 0.88))),
          margin: narrow ? { l: 58, r: 10, t: 60, b: 70 } : { l: 74, r: 10, t: 10, b: 60 },
          xaxis: scoreAxis(`score of ${short(data.pair[0])}`, width, narrow ? { tickangle: -60 } : {}),
          yaxis: scoreAxis(`score of ${short(data.pair[1])}`, width),
          shapes: choice ? excludedArea(choice()) : [],
        },
      };
    };
  }

  function spreadFigure(one) {
    const edges = data.axis.edges;
    return (width) => {
      const most = Math.max(1, ...one.counts);
      const powers = powersUpTo(most, 7).map((power) => 10 ** power);
      return {
        data: [{
          type: "bar",
          x: one.counts.map((_, at) => (edges[at] + edges[at + 1]) / 2),
          width: one.counts.map((_, at) => edges[at + 1] - edges[at]),
          y: one.counts.map((count) => count || null),
          text: one.counts.map((count, at) => `${data.axis.bins[at]}<br>${whole.format(count)} samples`),
          textposition: "none",
          hoverinfo: "text",
          marker: { color: colour("bar"), line: { color: colour("ground"), width: 1 } },
        }],
        layout: {
          height: 280,
          xaxis: scoreAxis(`score of ${short(one.signal)}`, width, isNarrow(width) ? { tickangle: -60 } : {}),
          yaxis: axis("samples", width, {
            type: "log",
            range: [-0.3, Math.log10(most) + 0.2],
            tickvals: powers,
            ticktext: powers.map((power) => compact.format(power)),
          }),
          bargap: 0,
          shapes: one.cuts.flatMap(mark),
        },
      };
    };
  }

  function partsFigure(width) {
    const groups = data.parts;
    const grouped = groups.some((group) => group.parts.includes(" "));
    const x = groups.map((group) => group.at);
    const room = Math.max(0.5, 0.02 * data.count);
    const legend = { orientation: "h", traceorder: "normal", x: 0, y: 1.02, yanchor: "bottom", font: { color: colour("text") } };
    const traces = [["excluded", "excluded", "circle"], ["unscored", "second", "diamond-open"]].flatMap(([name, shade, symbol]) => {
      const mean = {
        type: "scatter",
        name,
        x,
        y: groups.map((group) => group[name][1]),
        mode: grouped ? "lines" : "markers",
        line: { color: colour(shade), width: 1.5, dash: name === "unscored" ? "dot" : "solid" },
        marker: { color: colour(shade), size: groups.length > 120 ? 5 : 8, symbol, line: { width: 1.5, color: colour(shade) } },
        text: groups.map((group) =>
          `part${grouped ? "s" : ""} ${group.parts}<br>${name} ${group[name][1] ?? "-"} %` +
          (grouped ? `<br>a single part: ${group[name][0]} to ${group[name][2]} %` : "")),
        hoverinfo: "text",
      };
      if (!grouped) return [mean];
      const bound = (at, fill) => ({
        type: "scatter", x, y: groups.map((group) => group[name][at]), mode: "lines", hoverinfo: "skip",
        line: { width: at === 2 ? 1 : 0, color: colour(shade) }, fill, showlegend: false, opacity: 0.8,
      });
      return [bound(0, "none"), bound(2, "tonexty"), mean];
    });
    const most = Math.max(1, ...groups.flatMap((group) => [group.excluded[2], group.unscored[2]]));
    return {
      data: traces,
      layout: {
        height: 300,
        showlegend: true,
        legend,
        margin: { l: isNarrow(width) ? 48 : 60, r: 12, t: 34, b: 52 },
        shapes: data.excluded === null ? [] : [{
          type: "line", xref: "paper", x0: 0, x1: 1, y0: data.excluded, y1: data.excluded,
          line: { color: colour("muted"), width: 1, dash: "dash" },
        }],
        xaxis: axis("number of the part", width, { showgrid: false, tickformat: ",d", ...(data.count <= 12 ? { tick0: 0, dtick: 1 } : {}), range: [-room, data.count - 1 + room] }),
        yaxis: axis("share of its samples, %", width, { range: [-0.03 * most, 1.08 * most], nticks: 6 }),
      },
    };
  }

  const redrawAll = () => drawn.forEach((redraw) => redraw());
  let waiting = 0;
  const later = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(redrawAll);
  };
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return; // on a phone, a bar that comes and goes
    width = window.innerWidth;
    later();
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
  printed.addEventListener("change", redrawAll);

  // Tables behind figures are printed too; those that are closed again afterwards were closed before.
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")].filter((one) => one.querySelectorAll("tr").length < 60);
    opened.forEach((one) => { one.open = true; });
  });
  window.addEventListener("afterprint", () => opened.splice(0).forEach((one) => { one.open = false; }));

  document.querySelectorAll(".needs-script").forEach((one) => { one.hidden = false; });
  document.querySelectorAll("[data-copy]").forEach((button) => {
    const label = button.textContent;
    button.addEventListener("click", async () => {
      const source = place(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source);
        source.focus();
        button.textContent = document.execCommand("copy") ? "Copied" : "Selected: copy it now";
      }
      setTimeout(() => { button.textContent = label; }, 3000);
    });
  });

  data.spread.forEach((one, number) => draw(`spread-figure${number}`, spreadFigure(one))?.());
  draw("parts-figure", partsFigure)?.();
  return { data, draw, place, planeFigure, whole };
})();
