// Charts of the last minutes, by uPlot. A figure names the columns that it draws; the page brings the points.

const MOST = 600;

const seconds = (value) => {
  if (value === 0) return "0";
  if (value < 0.001) return `${(value * 1e6).toPrecision(2)} µs`;
  if (value < 1) return `${Number((value * 1e3).toPrecision(3))} ms`;
  return `${Number(value.toPrecision(3))} s`;
};
const plain = (value) => {
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))} M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))} k`;
  return String(Number(value.toPrecision(3)));
};
const units = { s: seconds, bytes: (value) => `${plain(value / 1048576)} MiB` };
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

let columns = {};
const charts = [];

function read() {
  const holder = document.querySelector("#points");
  return holder ? JSON.parse(holder.dataset.points) : {};
}

// Puts the newest points behind those that are there; a gap (the page slept) is a gap in the lines.
function merge(fresh) {
  const times = fresh.t || [];
  const last = columns.t?.length ? columns.t[columns.t.length - 1] : -Infinity;
  const from = times.findIndex((t) => t > last);
  if (from < 0) return;
  const known = columns.t?.length || 0;
  for (const [name, values] of Object.entries(fresh)) {
    columns[name] ??= new Array(known).fill(null);
    columns[name].push(...values.slice(from));
    if (columns[name].length > MOST) columns[name].splice(0, columns[name].length - MOST);
  }
}

class Chart {
  constructor(figure) {
    this.figure = figure;
    this.names = figure.dataset.lines.split(" ");
    this.labels = figure.dataset.labels.split("|");
    this.tones = figure.dataset.tones.split(" ");
    this.format = units[figure.dataset.unit] || plain;
    this.area = figure.querySelector(".plot");
    this.keys = figure.querySelector(".keys");
    this.keys.replaceChildren(...this.labels.map((_, at) => {
      const key = document.createElement("span");
      key.className = this.tones[at];
      return key;
    }));
    this.draw();
    new ResizeObserver(() => this.plot.setSize(this.size())).observe(this.area);
  }

  size() {
    return { width: Math.max(120, this.area.clientWidth), height: this.area.clientHeight };
  }

  data() {
    const times = columns.t || [];
    return [times, ...this.names.map((name) => columns[name] || new Array(times.length).fill(null))];
  }

  draw() {
    this.plot?.destroy();
    const text = colour("--pico-muted-color");
    const grid = { stroke: colour("--pico-table-border-color"), width: 1 };
    const axis = { stroke: text, grid, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const series = this.names.map((name, at) => {
      const stroke = colour(`--${this.tones[at]}`);
      return {
        label: this.labels[at],
        stroke,
        width: 1.5,
        points: { show: name.startsWith("p"), size: 4 },
        spanGaps: name.startsWith("p"),
        fill: this.names.length === 1 ? `${stroke}22` : undefined,
        dash: at % 2 ? [6, 3] : undefined,
      };
    });
    this.plot = new uPlot({
      ...this.size(),
      legend: { show: false },
      cursor: { y: false, drag: { setScale: false }, points: { size: 5 } },
      scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(high ?? 0, Number(this.figure.dataset.least || 1)) * 1.08] } },
      axes: [
        { ...axis, size: 22, space: 80, values: (_, at) => at.map((t) => new Date(t * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false })) },
        { ...axis, size: 58, space: 30, values: (_, at) => at.map(this.format) },
      ],
      series: [{}, ...series],
      hooks: { setCursor: [(plot) => this.tell(plot.cursor.idx)] },
    }, this.data(), this.area);
    this.tell(null);
  }

  // The keys show the newest values, or those under the pointer; the label tells the newest to those who cannot see it.
  tell(at) {
    const data = this.data();
    const told = this.labels.map((label, line) => {
      const values = data[line + 1];
      const value = at == null ? values[values.length - 1] : values[at];
      return `${label} ${value == null ? "–" : this.format(value)}`;
    });
    [...this.keys.children].forEach((key, line) => { key.textContent = told[line]; });
    if (at == null) this.area.setAttribute("aria-label", `${this.figure.dataset.title}: ${told.join(", ")}`);
  }

  update() {
    this.plot.setData(this.data());
    if (this.plot.cursor.idx == null || this.plot.cursor.left < 0) this.tell(null);
  }
}

merge(read());
for (const figure of document.querySelectorAll("figure.chart")) charts.push(new Chart(figure));
document.addEventListener("htmx:after:swap", () => {
  merge(read());
  charts.forEach((chart) => chart.update());
});
document.addEventListener("asyncworker:theme", () => charts.forEach((chart) => chart.draw()));
