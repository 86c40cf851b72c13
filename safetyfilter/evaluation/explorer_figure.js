// The plane as a figure. Plotly's bundle comes as text: anywidget drops all that is sent to a widget whose module takes
// more than two seconds to load, and a bundle within this module would, on a busy machine.

let loaded = null;

// The bundle is for several kinds of loader: it takes this one for that of CommonJS.
function load(bundle) {
  if (!loaded) {
    const text = `const module = { exports: {} };\n${bundle}\nexport default module.exports;`;
    const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    loaded = import(url).then((module) => module.default);
  }
  return loaded;
}

function isDark(element) {
  for (let node = element; node; node = node.parentElement) {
    const parts = getComputedStyle(node).backgroundColor.match(/[\d.]+/g)?.map(Number);
    if (parts && (parts.length < 4 || parts[3] > 0.5)) {
      return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] < 110;
    }
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function render({ model, el }) {
  const plot = document.createElement("div");
  el.classList.add("safetyfilter-figure");
  el.setAttribute("role", "img");
  el.setAttribute("aria-label", "Scores of both signals as a density; the tables hold what the policy does");
  el.append(plot);

  async function drawn() {
    const Plotly = await load(model.get("bundle"));
    const { colorscale, layout } = model.get("looks")[isDark(el) ? "dark" : "light"];
    const trace = { ...model.get("trace"), colorscale };
    // A copy, since Plotly writes into what it draws, and would take what is equal to it for no change.
    await Plotly.react(plot, [trace], { ...structuredClone(layout), width: el.clientWidth }, model.get("config"));
  }
  // One drawing at a time, each with all that holds by then: whatever changes meanwhile is drawn after it, and whole.
  let [asked, drawing] = [0, false];
  async function draw() {
    asked += 1;
    if (drawing) {
      return;
    }
    drawing = true;
    try {
      for (let done = 0; done !== asked && el.clientWidth; ) {
        done = asked;
        await drawn();
      }
    } finally {
      drawing = false;
    }
  }

  // Once it is in the page, and whenever the room for it or the page's theme changes.
  const size = new ResizeObserver(draw);
  size.observe(el);
  const page = new MutationObserver(draw);
  page.observe(document.body, { attributes: true });
  page.observe(document.documentElement, { attributes: true });
  model.on("change:looks", draw);
  return () => {
    size.disconnect();
    page.disconnect();
    model.off("change:looks", draw);
    loaded?.then((Plotly) => Plotly.purge(plot));
  };
}

export default { render };
