// Corrects a label map with brush and eraser: strokes of discs, undone and redone slice by slice.

const MOST = 40; // strokes of a slice that can be undone
const LIVE = 200000; // pixels of a slice up to which all of it is drawn anew while the brush moves

export class Editor extends EventTarget {
  constructor(stage, slices) {
    super();
    this.stage = stage;
    this.slices = slices;
    this.tool = "brush";
    this.id = slices.view.classes[0]?.id ?? 1;
    this.size = 7;
    this.active = false;
    this.number = 1;
    this.labels = null;
    this.done = new Map();
    this.undone = new Map();
    this.from = null;
    this.trail = [];
    this.colour = () => "#fff";
    this.place = [slices.width / 2, slices.height / 2];
    const canvas = stage.canvas;
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", () => this.end());
    canvas.addEventListener("pointercancel", () => this.end());
    canvas.addEventListener("pointerleave", () => this.point());
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  activate(active) {
    this.active = active;
    this.stage.correcting = active;
    this.stage.canvas.classList.toggle("correcting", active);
    this.point();
  }

  // The slice that is shown, with labels that may be changed.
  show(number, labels) {
    if (this.from) this.end();
    this.number = number;
    this.labels = labels;
  }

  begin(event) {
    if (!this.active || event.button) return;
    event.preventDefault();
    this.stage.canvas.focus({ preventScroll: true });
    this.stage.canvas.setPointerCapture(event.pointerId);
    this.remember();
    this.stroke(this.stage.at(event));
  }

  move(event) {
    if (!this.active) return;
    this.place = this.stage.at(event);
    this.point(this.place);
    if (this.from) {
      const events = event.getCoalescedEvents?.() || [];
      for (const one of events.length ? events : [event]) this.stroke(this.stage.at(one));
    }
  }

  end() {
    if (!this.from) return;
    this.from = null;
    this.trail = [];
    this.point(this.place);
    this.keep();
  }

  key(event) {
    if (!this.active) return;
    const step = Math.max(1, Math.round(this.size / 2));
    const ways = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
    const lower = event.key.toLowerCase();
    if ((event.ctrlKey || event.metaKey) && ["z", "y"].includes(lower)) {
      event.preventDefault();
      if (lower === "y" || event.shiftKey) this.redo();
      else this.undo();
    } else if (ways[event.key]) {
      event.preventDefault();
      const [x, y] = ways[event.key];
      this.place = [
        Math.min(Math.max(this.place[0] + x * step, 0), this.slices.width - 0.5),
        Math.min(Math.max(this.place[1] + y * step, 0), this.slices.height - 0.5),
      ];
      this.point(this.place);
    } else if (event.key === " ") {
      event.preventDefault();
      this.remember();
      this.stroke(this.place);
      this.end();
    }
  }

  remember() {
    const stack = this.done.get(this.number) || [];
    stack.push(this.labels.slice());
    if (stack.length > MOST) stack.shift();
    this.done.set(this.number, stack);
    this.undone.set(this.number, []);
  }

  stroke([x, y]) {
    const [x0, y0] = this.from || [x, y];
    const steps = Math.max(1, Math.ceil(Math.hypot(x - x0, y - y0) / Math.max(1, this.size / 4)));
    for (let step = 0; step <= steps; step += 1) {
      this.disc(x0 + ((x - x0) * step) / steps, y0 + ((y - y0) * step) / steps);
    }
    this.from = [x, y];
    if (this.slices.pixels <= LIVE) {
      this.dispatchEvent(new Event("change"));
    } else {
      this.trail.push([x, y]);
      this.point([x, y]);
    }
  }

  disc(x, y) {
    const { width, height, pixels, view } = this.slices;
    const radius = this.size / 2;
    const erases = this.tool === "eraser";
    for (let row = Math.floor(y - radius); row <= y + radius; row += 1) {
      for (let column = Math.floor(x - radius); column <= x + radius; column += 1) {
        if (row < 0 || column < 0 || row >= height || column >= width) continue;
        const inside = Math.hypot(column + 0.5 - x, row + 0.5 - y) <= Math.max(radius, 0.75);
        const under = column === Math.floor(x) && row === Math.floor(y);
        if (!inside && !under) continue;
        const k = row * width + column;
        if (view.overlapping) this.labels[this.id * pixels + k] = erases ? 0 : 1;
        else this.labels[k] = erases ? 0 : this.id;
      }
    }
  }

  undo() {
    this.swap(this.done, this.undone);
  }

  redo() {
    this.swap(this.undone, this.done);
  }

  swap(from, to) {
    const before = from.get(this.number)?.pop();
    if (!before) return;
    to.set(this.number, [...(to.get(this.number) || []), this.labels.slice()]);
    this.labels.set(before);
    this.keep();
  }

  // Back to the labels of the network; can be undone.
  async reset() {
    const [number, labels] = [this.number, await this.slices.network(this.number)];
    if (number !== this.number) return;
    this.remember();
    this.labels.set(labels);
    this.keep();
  }

  keep() {
    this.slices.keep(this.number, this.labels);
    this.dispatchEvent(new Event("change"));
  }

  can(stack) {
    return Boolean(stack.get(this.number)?.length);
  }

  // Draws the outline of the brush, or nothing.
  point(place) {
    const canvas = this.stage.cursor;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!place || !this.active) return;
    const [sx, sy] = [canvas.width / this.slices.width, canvas.height / this.slices.height];
    if (this.trail.length) {
      context.globalAlpha = 0.6;
      context.strokeStyle = this.tool === "eraser" ? "#000" : this.colour(this.id);
      context.lineWidth = Math.max(this.size * Math.min(sx, sy), 1);
      context.lineCap = context.lineJoin = "round";
      context.setLineDash([]);
      context.beginPath();
      const [first] = this.trail;
      context.moveTo(first[0] * sx, first[1] * sy + 0.1); // a point is a line too
      for (const [x, y] of this.trail) context.lineTo(x * sx, y * sy);
      context.stroke();
      context.globalAlpha = 1;
    }
    for (const [colour, width] of [["#000", 4], ["#fff", 1.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.setLineDash(this.tool === "eraser" ? [5, 4] : []);
      context.beginPath();
      context.ellipse(
        place[0] * sx, place[1] * sy, Math.max((this.size / 2) * sx, 2),
        Math.max((this.size / 2) * sy, 2), 0, 0, 2 * Math.PI,
      );
      context.stroke();
    }
  }
}
