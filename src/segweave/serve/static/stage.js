// One picture on the page: a canvas that shows a slice, hears the wheel and the keys, and passes
// where the pointer is on to whoever corrects.

import { make } from "./dom.js";

const LARGEST = 3072; // pixels of a canvas; a phone's memory is small
const WHEEL = 40;
export const EDGES = ["left", "right", "top", "bottom"];

export class Stage extends EventTarget {
  constructor(title, slices) {
    super();
    this.slices = slices;
    this.canvas = make("canvas", { tabIndex: 0, role: "img" });
    this.cursor = make("canvas", { className: "cursor", "aria-hidden": "true" });
    this.sheet = make("div", { className: "sheet" }, this.canvas, this.cursor);
    // R, L, A, P, S, I at the edges, where the image says how it lies in the patient.
    const letters = (slices.view.edges || []).map((letter, k) =>
      make("span", { className: `edge ${EDGES[k]}`, "aria-hidden": "true" }, letter));
    this.sheet.append(...letters);
    this.frame = make("div", { className: "frame" }, this.sheet);
    this.title = make("figcaption", {}, title);
    this.figure = make("figure", {}, this.title, this.frame);
    this.turned = 0;
    this.frame.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  // Fits the canvas to the frame; `zoom` of 1 shows all of it.
  fit(zoom) {
    const { wide, tall } = this.slices;
    const most = Math.max(200, Math.min(window.innerHeight * 0.72, 760));
    const across = Math.min(this.frame.clientWidth || 320, (most * wide) / tall);
    const width = across * zoom;
    const ratio = Math.min(window.devicePixelRatio || 1, LARGEST / Math.max(width, (width * tall) / wide));
    this.sheet.style.width = `${width}px`;
    this.sheet.style.height = `${(width * tall) / wide}px`;
    this.frame.style.maxHeight = `${Math.ceil(Math.max(most, 200)) + 2}px`;
    for (const canvas of [this.canvas, this.cursor]) {
      const size = [Math.round(width * ratio), Math.round((width * ratio * tall) / wide)];
      if (canvas.width !== size[0]) canvas.width = size[0];
      if (canvas.height !== size[1]) canvas.height = size[1];
    }
  }

  describe(text) {
    this.canvas.setAttribute("aria-label", text);
  }

  wheel(event) {
    event.preventDefault();
    if (event.ctrlKey) {
      this.dispatchEvent(new CustomEvent("zoom", { detail: event.deltaY < 0 ? 0.5 : -0.5 }));
      return;
    }
    this.turned += event.deltaMode ? event.deltaY * WHEEL : event.deltaY;
    const steps = Math.trunc(this.turned / WHEEL);
    this.turned -= steps * WHEEL;
    if (steps) this.dispatchEvent(new CustomEvent("step", { detail: steps }));
  }

  key(event) {
    const arrows = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 };
    const pages = { PageUp: 1, PageDown: -1, Home: -Infinity, End: Infinity };
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const step = this.correcting ? pages[event.key] : { ...arrows, ...pages }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    this.dispatchEvent(new CustomEvent("step", { detail: step }));
  }

  // Where a pointer is, in pixels of the slice.
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * this.slices.width,
      ((event.clientY - box.top) / box.height) * this.slices.height,
    ];
  }
}
