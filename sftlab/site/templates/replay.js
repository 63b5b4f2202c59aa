// Curves that a lesson recorded, drawn again in five seconds when the presenter goes on: of each
// series the mean, and a band over its seeds. Without scripts, and on paper, the picture stands.
const SVG = "http://www.w3.org/2000/svg", W = 1120, H = 440, LEFT = 90, RIGHT = 20, TOP = 74, FOOT = 62;
const SECONDS = 5;

function add(parent, name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return parent.appendChild(node);
}

function ticks(low, high, log) {
  if (log) {
    const found = [];
    for (let e = Math.floor(low); e <= high; e++)
      for (const f of [1, 2, 5]) found.push(Math.log10(f) + e);
    return found.filter((v) => v >= low && v <= high);
  }
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step / 1e6; v += step) found.push(v);
  return found;
}

class Replay {
  constructor(block) {
    const data = JSON.parse(block.querySelector("script").textContent);
    const scale = data.log ? Math.log10 : (v) => v;
    this.lines = data.series.map((series) => ({
      name: series.name, colour: series.colour,
      points: series.x.map((x, n) => {
        const y = series.seeds.map((seed) => seed[n]).filter((v) => v !== null && v !== undefined);
        return [x, y.reduce((a, b) => a + b, 0) / y.length, Math.min(...y), Math.max(...y)];
      }).filter((p) => Number.isFinite(p[1])).map(([x, ...ys]) => [x, ...ys.map(scale)]),
    }));
    const xs = this.lines.flatMap((l) => l.points.map((p) => p[0]));
    const ys = this.lines.flatMap((l) => l.points.flatMap((p) => p.slice(1)));
    this.x = [Math.min(...xs), Math.max(...xs)];
    this.y = [data.log ? Math.min(...ys) : Math.min(0, ...ys), Math.max(...ys)];
    if (data.percent) this.y[1] = Math.max(this.y[1], 0.1);
    const room = 0.04 * (this.y[1] - this.y[0] || 1);
    this.y = [this.y[0] - (data.log ? room : 0), this.y[1] + room];
    this.axes(block.querySelector(".stage"), data);
    this.show(0);
  }
  place(x, y) {
    const across = (x - this.x[0]) / (this.x[1] - this.x[0] || 1);
    const up = (y - this.y[0]) / (this.y[1] - this.y[0]);
    return [LEFT + across * (W - LEFT - RIGHT), H - FOOT - up * (H - TOP - FOOT)];
  }
  axes(stage, data) {
    const picture = stage.querySelector("img");
    const svg = add(stage, "svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": picture.alt });
    picture.remove();
    add(svg, "text", { x: 0, y: 24, class: "title" }, data.title);
    let along = LEFT;
    for (const line of this.lines.filter((l) => l.name)) {
      add(svg, "rect", { x: along, y: 42, width: 24, height: 14, fill: line.colour });
      const label = add(svg, "text", { x: along + 32, y: 56 }, line.name);
      along += 32 + line.name.length * 11 + 30;
    }
    const several = data.series.some((series) => series.seeds.length > 1);
    for (const y of ticks(...this.y, data.log)) {
      const [, at] = this.place(this.x[0], y), value = data.log ? 10 ** y : y;
      add(svg, "line", { x1: LEFT, x2: W - RIGHT, y1: at, y2: at, stroke: "#e3e6e9" });
      const text = data.percent ? `${+(100 * value).toFixed(1)}%` : `${+value.toPrecision(3)}`;
      add(svg, "text", { x: LEFT - 10, y: at + 7, "text-anchor": "end" }, text);
    }
    const named = data.ticks || ticks(...this.x).map((x) => [x, `${+x.toPrecision(4)}`]);
    for (const [x, text] of named)
      add(svg, "text", { x: this.place(x, 0)[0], y: H - FOOT + 26, "text-anchor": "middle" }, text);
    const under = `${data.x}${several ? " (band: from the lowest to the highest seed)" : ""}`;
    add(svg, "text", { x: (LEFT + W - RIGHT) / 2, y: H - 6, "text-anchor": "middle" }, under);
    add(svg, "text", { x: 18, y: (TOP + H - FOOT) / 2, "text-anchor": "middle",
      transform: `rotate(-90 18 ${(TOP + H - FOOT) / 2})` }, data.y);
    for (const line of this.lines) {
      line.band = add(svg, "path", { fill: line.colour, opacity: 0.2 });
      line.mean = add(svg, "path", { stroke: line.colour, "stroke-width": 4, fill: "none" });
    }
  }
  show(share) { // of the way along the x axis
    const end = this.x[0] + share * (this.x[1] - this.x[0]);
    for (const line of this.lines) {
      const shown = line.points.filter((p) => share > 0 && p[0] <= end), next = line.points[shown.length];
      if (next && shown.length) { // the line grows between two points too
        const last = shown.at(-1), part = (end - last[0]) / (next[0] - last[0]);
        shown.push(next.map((v, k) => last[k] + part * (v - last[k])));
      }
      const path = (points) => points.map(([x, y], n) => (n ? "L" : "M") + this.place(x, y)).join("");
      line.mean.setAttribute("d", path(shown.map((p) => [p[0], p[1]])));
      const back = shown.map((p) => [p[0], p[3]]).reverse();
      line.band.setAttribute("d", path([...shown.map((p) => [p[0], p[2]]), ...back]));
    }
  }
  run() {
    const began = performance.now();
    const step = (now) => {
      const share = Math.min(1, Math.max(0, (now - began) / 1000 / SECONDS));
      this.show(share);
      if (share < 1) this.frame = requestAnimationFrame(step);
    };
    this.frame = requestAnimationFrame(step);
  }
  stop() { cancelAnimationFrame(this.frame); this.show(0); }
}

function fit(slide) { // a sentence beside a high picture; type as large as there is room for
  const body = slide.querySelector(".body"), picture = body.querySelector(".picture img");
  const high = picture && picture.naturalWidth < 2.2 * picture.naturalHeight;
  body.classList.toggle("side", Boolean(high && body.querySelector(".text")));
  const over = () => body.scrollHeight > body.clientHeight || body.scrollWidth > body.clientWidth;
  const most = body.querySelector(".table, .card, .print") ? 1.3 : 1;
  for (let size = most; size > 0.4 && (size === most || over()); size -= 0.05) body.style.setProperty("--fit", size);
}

if (paper) addEventListener("load", () => document.querySelectorAll(".slides section").forEach(fit));
Reveal.on("ready", () => {
  const replays = new Map();
  for (const block of document.querySelectorAll(".block.replay")) replays.set(block, new Replay(block));
  fit(Reveal.getCurrentSlide());
  addEventListener("load", () => fit(Reveal.getCurrentSlide()));
  Reveal.on("slidechanged", (event) => fit(event.currentSlide));
  const of = (event) => replays.get(event.fragments.map((f) => f.closest(".replay")).find(Boolean));
  Reveal.on("fragmentshown", (event) => of(event)?.run());
  Reveal.on("fragmenthidden", (event) => of(event)?.stop());
});
