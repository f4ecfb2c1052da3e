"use strict";
// Data arrives as JSON and is shown through textContent only: nothing that a model wrote is ever parsed as HTML.
(() => {
  const PAGE = 25;
  const MINUS = "\u2212";
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const data = (element) => JSON.parse(document.getElementById(element.dataset.from).textContent);

  function make(tag, props = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(props)) {
      if (key in element) element[key] = value;
      else element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }

  // ---- theme
  const root = document.documentElement;
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const themeButton = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);

  function setTheme(theme) {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    themeButton.textContent = isDark() ? "Light theme" : "Dark theme";
    all(".plot.drawn").forEach(recolour);
  }

  function colour(name) {
    const probe = make("span", { hidden: true });
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  }

  // ---- figures
  function template() {
    const [text, muted, line, raised] = ["text", "muted", "line", "raised"].map(colour);
    const axis = {
      gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line, automargin: true,
      title: { standoff: 10, font: { size: 12, color: muted } }, tickfont: { color: muted },
    };
    const bar = { outlinewidth: 0, thickness: 12, tickfont: { color: muted } };
    return {
      layout: {
        font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: text },
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", xaxis: axis, yaxis: axis,
        colorway: isDark()
          ? ["#8f9bff", "#f2b04e", "#4cc38a", "#ff8b7d", "#5cc8e8", "#d39bf5"]
          : ["#4350c4", "#d0871c", "#12845d", "#c9402f", "#1688a8", "#8b46b8"],
        hoverlabel: { bgcolor: raised, bordercolor: line, font: { color: text }, align: "left", namelength: -1 },
        legend: { orientation: "h", yanchor: "bottom", y: 1.02, x: 0, font: { color: muted } },
        margin: { l: 48, r: 16, t: 28, b: 44 },
        coloraxis: { colorbar: bar },
      },
      data: { heatmap: [{ colorbar: bar }], bar: [{ marker: { line: { width: 0 } } }] },
    };
  }

  function draw(plot) {
    const { data: traces, layout } = data(plot);
    plot.classList.add("drawn");
    const fine = matchMedia("(pointer: fine)").matches;
    const own = { ...layout, template: template(), autosize: true, dragmode: fine ? layout.dragmode || "zoom" : false };
    delete own.paper_bgcolor;
    delete own.plot_bgcolor;
    plot.style.height = `${Math.max(240, Math.min(layout.height || 340, 900))}px`;
    delete own.height;
    const label = (plot.parentElement.querySelector("figcaption") || plot.closest("section").querySelector("h2")).textContent;
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", `Figure: ${label}`);
    Plotly.newPlot(plot, traces, own, { displayModeBar: false, responsive: true, showTips: false });
  }

  function recolour(plot) {
    Plotly.relayout(plot, { template: template() });
  }

  // ---- tables
  const number = (value) => {
    const size = Math.abs(value);
    const sign = value < 0 ? MINUS : "";
    if (Number.isInteger(size)) return sign + size;
    if (size >= 1000) return sign + Math.round(size).toLocaleString("en-US");
    return sign + (size < 1e-4 ? size.toExponential(2).replace("-", MINUS) : size.toPrecision(3));
  };
  const show = (value) =>
    value === null || value === undefined ? "\u2014"
    : typeof value === "number" ? number(value)
    : typeof value === "boolean" ? (value ? "yes" : "no")
    : value;
  const rank = (value) => ({ "\u221e": Infinity, [MINUS + "\u221e"]: -Infinity })[value] ?? value;
  const words = new Intl.Collator(undefined, { numeric: true });

  function compare(a, b, sign) {
    const [x, y] = [rank(a), rank(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    if (typeof x === "number" && typeof y === "number") return sign * (x - y || 0);
    return sign * words.compare(show(x), show(y));
  }

  function cellOf(value, numeric) {
    const text = show(value);
    if (numeric || typeof value === "number") return make("td", { className: "num" }, text);
    const wide = text.length > 36 || text.includes("\n");
    const cell = make("div", { className: "cell", dir: "auto" }, text);
    if (text.length > 150 || text.split("\n").length > 3) {
      cell.classList.add("clamp");
      for (const [key, to] of [["tabindex", "0"], ["role", "button"], ["aria-expanded", "false"]]) cell.setAttribute(key, to);
    }
    return make("td", { className: wide ? "wide" : "short" }, cell);
  }

  function toggleCell(event) {
    const cell = event.target.closest(".clamp");
    if (!cell || (event.type === "keydown" && event.key !== "Enter" && event.key !== " ")) return;
    if (event.type === "click" && String(getSelection())) return; // somebody selects the text
    if (event.type === "keydown") event.preventDefault();
    cell.setAttribute("aria-expanded", String(cell.getAttribute("aria-expanded") !== "true"));
  }

  function facets(columns, rows, changed) {
    if (rows.length < 8) return [];
    const found = columns.map((name, i) => ({ name, i, values: [...new Set(rows.map((row) => row[i]))] }));
    const few = found.filter(({ values }) =>
      values.length > 1 && values.length < 9 && values.length <= rows.length / 2 && values.every((v) => v === null || typeof v === "boolean" || (typeof v === "string" && v.length < 40)));
    return few.slice(0, 2).map(({ name, i, values }) => {
      const options = values.map((v, at) => make("option", { value: String(at) }, show(v)));
      const select = make("select", { "aria-label": `Show only rows by ${name}` }, make("option", { value: "" }, `${name}: all`), ...options);
      select.addEventListener("change", changed);
      return { select, keeps: (row) => select.value === "" || row[i] === values[Number(select.value)] };
    });
  }

  function grid(host) {
    const { columns, rows } = data(host);
    const title = host.closest("section").querySelector("h2").textContent;
    const numeric = columns.map((_, i) => rows.some((r) => typeof r[i] === "number") && rows.every((r) => r[i] === null || typeof rank(r[i]) === "number"));
    const haystack = new Map(rows.map((row) => [row, row.map(show).join("\n").toLowerCase()]));
    const state = { column: -1, sign: 1, page: 0 };
    const restart = () => { state.page = 0; paint(); };
    const filter = make("input", { type: "search", placeholder: "Filter rows", "aria-label": `Filter the rows of ${title}` });
    const limits = facets(columns, rows, restart);
    const count = make("output", { className: "count" });
    const place = make("span", { className: "where" });
    const [back, on] = [["Previous", -1], ["Next", 1]].map(([text, step]) =>
      make("button", { type: "button", onclick: () => { state.page += step; paint(); } }, text));
    const pager = make("span", { className: "pager" }, back, place, on);
    const heads = columns.map((name, i) => {
      const button = make("button", { type: "button", onclick: () => sortBy(i) }, name);
      return make("th", { scope: "col", className: numeric[i] ? "num" : "" }, button);
    });
    const body = make("tbody");

    function sortBy(i) {
      state.sign = state.column === i ? -state.sign : numeric[i] ? -1 : 1;
      state.column = i;
      heads.forEach((head, at) => at === i ? head.setAttribute("aria-sort", state.sign > 0 ? "ascending" : "descending") : head.removeAttribute("aria-sort"));
      restart();
    }

    function paint() {
      const sought = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      const kept = rows.filter((row) => sought.every((word) => haystack.get(row).includes(word)) && limits.every((limit) => limit.keeps(row)));
      if (state.column >= 0) kept.sort((a, b) => compare(a[state.column], b[state.column], state.sign));
      const start = state.page * PAGE;
      const shown = kept.slice(start, start + PAGE);
      body.replaceChildren(...shown.map((row) => make("tr", {}, ...row.map((value, i) => cellOf(value, numeric[i])))));
      if (!shown.length) body.append(make("tr", {}, make("td", { colSpan: columns.length, className: "muted" }, "No row matches the filter.")));
      count.textContent = kept.length === rows.length ? `${rows.length} rows` : `${kept.length} of ${rows.length}`;
      place.textContent = shown.length ? `${start + 1}\u2013${start + shown.length}` : "";
      pager.hidden = kept.length <= PAGE;
      back.disabled = state.page === 0;
      on.disabled = start + PAGE >= kept.length;
    }

    filter.addEventListener("input", restart);
    body.addEventListener("click", toggleCell);
    body.addEventListener("keydown", toggleCell);
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body);
    const tools = make("div", { className: "tools" }, filter, ...limits.map((limit) => limit.select), count, pager);
    tools.hidden = rows.length < 6;
    host.append(tools, make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": `Table of ${title}` }, table));
    paint();
  }

  // ---- token heat maps
  const HUES = { 1: [1], 2: [0, 2], 3: [0, 1, 2], 4: [0, 1, 2, 3] };
  const notes = new WeakMap();

  function visible(text) {
    if (!text) return "\u2205";
    const blank = !text.trim();
    return text.replace(/\r/g, "\u240d").replace(/\n/g, "\u21b5\n").replace(/\t/g, "\u2192\t")
      .replace(/ {2,}/g, (run) => "\u00b7".repeat(run.length)).replace(/^ $/, blank ? "\u00b7" : " ");
  }

  function heat(host) {
    const { labels, tokens } = data(host);
    const hues = HUES[labels.length] || labels.map((_, i) => i % 5);
    const hue = (i) => `var(--heat${hues[i]})`;
    const line = make("p", { className: "tokens", dir: "auto", role: "group", "aria-label": "Tokens; the arrow keys move between them" });
    for (const [text, score, label, note] of tokens) {
      const token = make("span", { className: "token", tabIndex: -1, role: "button" }, visible(text));
      token.style.setProperty("--hue", hue(label));
      token.style.setProperty("--heat", (0.6 * score).toFixed(3));
      const name = labels[label][0];
      notes.set(token, { text: visible(text).replace("\n", ""), score: `${name ? name + ", " : ""}score ${number(score)}`, note, label });
      line.append(token);
    }
    if (line.firstChild) line.firstChild.tabIndex = 0;
    line.addEventListener("keydown", walk);
    host.append(legend(labels, hue, line), line);
  }

  function legend(labels, hue, line) {
    const box = make("div", { className: "legend" });
    labels.forEach(([name, , count], i) => {
      if (!name) return;
      const swatch = make("i");
      swatch.style.setProperty("--hue", hue(i));
      const button = make("button", { type: "button", "aria-pressed": "false", title: "Show only these tokens" }, swatch, make("span", {}, `${name} ${count}`));
      button.addEventListener("click", () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        all("button", box).forEach((other) => other.setAttribute("aria-pressed", String(on && other === button)));
        [...line.children].forEach((token) => token.classList.toggle("dim", on && notes.get(token).label !== i));
      });
      box.append(button);
    });
    box.append(make("span", {}, "stronger colour: higher score"));
    return box;
  }

  function walk(event) {
    const step = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
    const from = event.target.closest(".token");
    const to = step ? from[step] : { Home: from.parentElement.firstChild, End: from.parentElement.lastChild }[event.key];
    if (!to) return;
    event.preventDefault();
    from.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  }

  // ---- the tooltip of tokens: hover, keyboard focus and touch
  const tip = document.getElementById("tip");
  let pointed = null;

  function tell(token) {
    const note = notes.get(token);
    if (!note) return;
    hush();
    pointed = token;
    token.setAttribute("aria-describedby", "tip");
    tip.replaceChildren(make("b", {}, note.text), make("small", {}, note.score), note.note);
    tip.hidden = false;
    placeTip();
  }

  function placeTip() {
    if (!pointed) return;
    const at = pointed.getClientRects()[0];
    const box = tip.getBoundingClientRect();
    const under = at.bottom + 8 + box.height < innerHeight;
    tip.style.left = `${Math.max(8, Math.min(at.left, innerWidth - box.width - 8))}px`;
    tip.style.top = `${under ? at.bottom + 8 : Math.max(8, at.top - box.height - 8)}px`;
  }

  function hush() {
    if (pointed) pointed.removeAttribute("aria-describedby");
    pointed = null;
    tip.hidden = true;
  }

  const tokenOf = (event) => (event.target instanceof Element ? event.target.closest(".token") : null);
  document.addEventListener("pointerover", (event) => event.pointerType !== "touch" && tokenOf(event) && tell(tokenOf(event)));
  document.addEventListener("pointerout", (event) => event.pointerType !== "touch" && tokenOf(event) && hush());
  document.addEventListener("focusin", (event) => (tokenOf(event) ? tell(tokenOf(event)) : hush()));
  document.addEventListener("click", (event) => (tokenOf(event) ? tell(tokenOf(event)) : hush()));
  document.addEventListener("keydown", (event) => event.key === "Escape" && hush());
  document.addEventListener("scroll", placeTip, { capture: true, passive: true });

  // ---- contents
  const contents = document.getElementById("contents");
  const desktop = matchMedia("(min-width: 68rem)");
  const fold = () => { contents.open = desktop.matches; };
  contents.addEventListener("click", (event) => event.target.closest("a") && fold());
  const links = new Map(all("a", contents).map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    const entry = entries.find((one) => one.isIntersecting);
    if (!entry) return;
    links.forEach((link, id) => id === entry.target.id ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"));
  }, { rootMargin: "-10% 0px -75% 0px" });

  // ---- draw what comes near the screen; everything before printing
  const makers = { plot: draw, grid, heat };
  const build = (host) => {
    near.unobserve(host);
    if (!host.dataset.built) makers[host.classList[0]](host);
    host.dataset.built = "yes";
  };
  const near = new IntersectionObserver((entries) => entries.filter((one) => one.isIntersecting).forEach((one) => build(one.target)), { rootMargin: "600px" });

  function start() {
    let stored = null;
    try { stored = localStorage.getItem("plumbline-theme"); } catch { /* a file may have no storage */ }
    themeButton.hidden = false;
    themeButton.addEventListener("click", () => {
      setTheme(isDark() ? "light" : "dark");
      try { localStorage.setItem("plumbline-theme", root.dataset.theme); } catch { /* the choice lasts until the page closes */ }
    });
    prefersDark.addEventListener("change", () => setTheme(root.dataset.theme));
    setTheme(stored);
    fold();
    desktop.addEventListener("change", fold);
    all("main > section[id]").forEach((section) => seen.observe(section));
    all(".grid").forEach(build);
    all(".plot, .heat").forEach((host) => near.observe(host));
    let before = null;
    addEventListener("beforeprint", () => { before = root.dataset.theme; all(".plot, .heat").forEach(build); setTheme("light"); });
    addEventListener("afterprint", () => setTheme(before));
  }

  start();
})();
