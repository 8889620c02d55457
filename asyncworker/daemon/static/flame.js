// A flame graph of a speedscope file. Frames are buttons: arrows walk, Enter zooms, Escape goes back.

const ROW = 21;
const MOST = 1500;

// Makes one tree of a speedscope file: samples are stacks of frames, outermost first; weights are seconds.
function tree({ shared, profiles }) {
  const root = { name: "all", value: 0, below: new Map(), above: null, depth: 0 };
  for (const { samples, weights } of profiles) {
    samples.forEach((stack, at) => {
      let node = root;
      root.value += weights[at];
      for (const frame of stack) {
        const { name } = shared.frames[frame];
        let next = node.below.get(name);
        if (!next) node.below.set(name, (next = { name, value: 0, below: new Map(), above: node, depth: node.depth + 1 }));
        next.value += weights[at];
        node = next;
      }
    });
  }
  return root;
}

const time = (s) => (s >= 1 ? `${s.toPrecision(3)} s` : s >= 1e-3 ? `${(s * 1e3).toPrecision(3)} ms` : `${Math.round(s * 1e6)} µs`);

function shade(name) {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + letter.codePointAt(0)) % 997;
  return `h${sum % 5}`;
}

class Flame {
  constructor(place) {
    this.place = place;
    this.told = document.querySelector("#frame");
    place.addEventListener("keydown", (event) => this.key(event));
    place.addEventListener("focusin", (event) => event.target.node && this.tell(event.target.node));
    place.addEventListener("pointerover", (event) => event.target.node && this.tell(event.target.node));
    place.addEventListener("click", (event) => event.target.node && this.zoom(event.target.node));
  }

  // Draws anew what was measured by now; not while somebody walks in it.
  async load() {
    if (this.place.contains(document.activeElement) || (this.root && this.current !== this.root)) return;
    const response = await fetch(this.place.dataset.src);
    if (!response.ok) return;
    const root = tree(await response.json());
    if (!root.value) return;
    this.root = root;
    this.zoom(root);
  }

  tell(node) {
    this.told.textContent = `${node.name}: ${time(node.value)}, ${((100 * node.value) / this.root.value).toFixed(1)} % of all`;
  }

  // Draws a frame at full width, those above it (its callers), and what is below it.
  zoom(node) {
    const focused = this.place.contains(document.activeElement);
    this.place.replaceChildren();
    this.current = node;
    this.nodes = new Map();
    this.deepest = 0;
    for (let at = node; at; at = at.above) this.frame(at, 0, 1, at !== node);
    this.spread(node, 0, 1);
    this.place.style.height = `${(this.deepest + 1) * ROW + 4}px`;
    const current = this.nodes.get(node);
    current.tabIndex = 0;
    if (focused) current.focus();
    this.tell(node);
  }

  spread(node, left, width) {
    let at = left;
    for (const child of [...node.below.values()].sort((a, b) => b.value - a.value)) {
      const share = (width * child.value) / node.value;
      if (share < 0.001 || this.nodes.size >= MOST) break;
      this.frame(child, at, share, false);
      this.spread(child, at, share);
      at += share;
    }
  }

  frame(node, left, width, past) {
    const button = document.createElement("button");
    button.type = "button";
    button.node = node;
    button.tabIndex = -1;
    button.textContent = node.name;
    button.className = `${shade(node.name)}${past ? " past" : ""}`;
    button.setAttribute("aria-label", `${node.name}, ${time(node.value)}, level ${node.depth}`);
    button.style.left = `${left * 100}%`;
    button.style.width = `${width * 100}%`;
    button.style.top = `${node.depth * ROW + 2}px`;
    this.deepest = Math.max(this.deepest, node.depth);
    this.nodes.set(node, button);
    this.place.append(button);
  }

  key(event) {
    const node = document.activeElement?.node;
    if (!node) return;
    const beside = node.above ? [...node.above.below.values()].sort((a, b) => b.value - a.value) : [node];
    const place = beside.indexOf(node);
    const next = {
      ArrowDown: [...node.below.values()].sort((a, b) => b.value - a.value)[0],
      ArrowUp: node.above,
      ArrowRight: beside[place + 1],
      ArrowLeft: beside[place - 1],
    }[event.key];
    if (event.key === "Escape") this.zoom(this.root);
    else if (!event.key.startsWith("Arrow")) return;
    else if (next && this.nodes.has(next)) {
      document.activeElement.tabIndex = -1;
      this.nodes.get(next).tabIndex = 0;
      this.nodes.get(next).focus();
    }
    event.preventDefault();
  }
}

const flame = new Flame(document.querySelector("#flame"));
flame.load().catch(() => {});
document.addEventListener("htmx:after:swap", () => flame.load().catch(() => { /* the page says that nobody answers */ }));
