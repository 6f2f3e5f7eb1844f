// The result of one job: its slices, how they are displayed, measurements and downloads.

import { bytes, linkTo } from "./api.js";
import { Compare } from "./compare.js";
import { Correct } from "./correct.js";
import { by, called, make, table } from "./dom.js";
import { drawSlice } from "./draw.js";
import { EDGES, Stage } from "./stage.js";
import { offerVolume } from "./volume.js";

const NAMES = {
  labels: "label map, in the geometry of the image",
  array: "label map as an array (npz), slices first",
  overlay: "picture of the slices with their classes",
  measurements: "measurements as a table (CSV)",
  probabilities: "probability of each class (npz)",
  uncertainty: "map of uncertainty, 0 to 1 (npz)",
  denoised: "denoised image",
  "dicom-seg": "DICOM segmentation object",
  rtstruct: "DICOM structure set (contours)",
  "dicom-sr": "DICOM structured report of the measurements",
};
const UNDECIDED =
  "How undecided the network is: 1 where all classes are equally likely. A confident network can " +
  "be wrong.";
const MAPS = { entropy: UNDECIDED, uncertainty: UNDECIDED };
const HEAD = [
  ["class", "Class"], ["pixels", "Pixels"], ["volume_ml", "Volume, ml"],
  ["largest_area", "Largest area"], ["largest_diameter", "Largest diameter"],
  ["objects", "Objects"],
];

export class Result {
  constructor(job, state, jobs, service, page, slices) {
    const { models, denoisers } = service;
    Object.assign(this, { job, state, jobs, models, denoisers, page, slices });
    this.closed = false;
    this.frame = null;
    this.display = { style: "filled", opacity: 0.35, zoom: 1, picture: "image", map: "" };
    this.looks = new Map();
    this.number = Math.ceil(slices.view.slices / 2);
    // Where there is most to see.
    const largest = [...slices.view.measurements].sort((a, b) => b.pixels - a.pixels)[0];
    if (Number(largest?.area_slice)) this.number = Number(largest.area_slice);
    by("shown").replaceChildren(by("result-template").content.cloneNode(true));
    by("shown").hidden = false;
    by("no-result").hidden = true;
    by("result-title").textContent = job.name;
    this.stage = new Stage(called(slices.view), slices);
    this.hear(this.stage);
    by("stages").append(this.stage.figure);
    this.about();
    this.addLooks(slices.view);
    this.controls();
    this.measure(slices.view.measurements);
    this.downloads();
    this.correct = new Correct(this);
    this.compare = new Compare(this);
    offerVolume(this);
    this.resize = new ResizeObserver(() => this.fit());
    this.resize.observe(by("stages"));
    this.refresh();
  }

  close() {
    this.closed = true;
    this.resize.disconnect();
    by("shown").replaceChildren();
    by("shown").hidden = true;
    by("no-result").hidden = false;
    by("result-title").textContent = "Result";
  }

  about() {
    const { view } = this.slices;
    const size = `${view.size[1]} × ${view.size[0]} pixels`;
    const steps = view.steps ? ` of ${view.steps.map((mm) => mm.toFixed(2)).join(" × ")} mm` : "";
    const count = view.slices === 1 ? "one slice" : `${view.slices} slices`;
    const edges = (view.edges || []).map((letter, k) => `${EDGES[k]} ${letter}`).join(", ");
    by("result-about").textContent =
      `Model ${called(view)}; ${count} of ${size}${steps}.` +
      (edges ? ` Sides of the patient: ${edges}.` : "");
  }

  // Classes of the same name look the same in all results.
  addLooks(view) {
    for (const { name, colour } of view.classes) {
      if (this.looks.has(name)) continue;
      const look = { visible: true, colour };
      this.looks.set(name, look);
      const box = make("input", { type: "checkbox", checked: true });
      const tone = make("input", { type: "color", value: colour, "aria-label": `Colour of ${name}` });
      box.addEventListener("change", () => {
        look.visible = box.checked;
        this.draw();
      });
      tone.addEventListener("input", () => {
        look.colour = tone.value;
        this.draw();
      });
      by("classes").append(make("li", {}, tone, make("label", {}, box, ` ${name}`)));
    }
  }

  hear(stage) {
    stage.addEventListener("step", ({ detail }) => this.go(this.number + detail));
    stage.addEventListener("zoom", ({ detail }) => {
      by("zoom").value = this.display.zoom + detail;
      by("zoom").dispatchEvent(new Event("input"));
    });
  }

  controls() {
    const { view } = this.slices;
    const slider = by("slice");
    slider.max = view.slices;
    slider.disabled = view.slices === 1;
    slider.addEventListener("input", () => this.go(Number(slider.value)));
    for (const radio of by("shown").querySelectorAll("[name=style]")) {
      radio.addEventListener("change", () => {
        this.display.style = radio.value;
        by("opacity").disabled = radio.value === "outline";
        this.draw();
      });
    }
    this.range("opacity", (value) => `${value} %`, (value) => {
      this.display.opacity = value / 100;
      this.draw();
    });
    this.range("zoom", (value) => `${value} ×`, (value) => {
      this.display.zoom = value;
      this.fit();
    });
    by("picture").append(...view.pictures.map((name) => make("option", {}, name)));
    by("picture-choice").hidden = view.pictures.length < 2;
    by("picture").addEventListener("change", () => {
      this.display.picture = by("picture").value;
      this.refresh();
    });
    by("map").append(...view.maps.map((name) => make("option", { value: name }, name)));
    by("map-choice").hidden = !view.maps.length;
    by("map").addEventListener("change", () => {
      this.display.map = by("map").value;
      by("map-key").hidden = !this.display.map;
      by("map-about").textContent = MAPS[this.display.map] || "";
      this.refresh();
    });
  }

  range(id, text, changed) {
    const input = by(id);
    const show = () => {
      by(`${id}-value`).textContent = text(Number(input.value));
    };
    show();
    input.addEventListener("input", () => {
      show();
      changed(Number(input.value));
    });
  }

  go(number) {
    const next = Math.min(Math.max(number, 1), this.slices.view.slices);
    if (next === this.number) return;
    this.number = next;
    this.refresh();
  }

  // Loads the current slice and draws it; of several requests the last one counts.
  async refresh() {
    const [number, { picture, map }] = [this.number, this.display];
    by("slice").value = number;
    by("slice-number").textContent = `${number} of ${this.slices.view.slices}`;
    const call = {};
    this.call = call;
    try {
      const [slice, other] = await Promise.all([
        this.slices.slice(number, picture, map),
        this.compare?.load(number, picture, map),
      ]);
      if (this.call !== call || this.closed) return;
      this.shown = slice;
      this.shownAs = { slice: number, picture, map };
      this.other = other;
      this.correct.show(number, slice.labels);
      this.stage.describe(`${called(this.slices.view)}, slice ${number} of ${this.slices.view.slices}`);
      this.fit();
      this.slices.ahead(number, picture, map);
    } catch (error) {
      if (this.call === call) by("result-about").textContent = error.message;
    }
  }

  fit() {
    this.stage.fit(this.display.zoom);
    this.compare?.fit(this.display.zoom);
    this.draw();
  }

  // Once for each frame, however often a stroke asks.
  drawSoon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  draw() {
    if (!this.shown || this.closed) return;
    drawSlice(this.stage.canvas, this.slices, this.shown, this.looks, this.display);
    this.compare?.draw(this.shown, this.other, drawSlice);
    // What is drawn, for whoever drives the page.
    Object.assign(by("stages").dataset, this.shownAs);
  }

  measure(rows, title = "") {
    const unit = { largest_area: "area_unit", largest_diameter: "diameter_unit" };
    const cell = (row, key) => {
      if (!row[key]) return "–";
      return unit[key] ? `${row[key]} ${row[unit[key]]}` : row[key];
    };
    by("measures").replaceChildren(
      ...(title ? [make("p", { className: "hint" }, title)] : []),
      table(HEAD.map(([, name]) => name), rows.map((row) => HEAD.map(([key]) => cell(row, key)))),
    );
  }

  downloads() {
    for (const [name, path] of Object.entries(this.state.results)) {
      const link = make("a", { download: "" }, name);
      linkTo(link, path);
      by("downloads").append(make("li", {}, link, ` – ${NAMES[name] || "result"}`));
    }
  }
}

// Rows of a CSV table whose cells may be quoted.
export async function csv(path) {
  const text = new TextDecoder().decode(await bytes(path));
  const [head, ...rows] = text.trim().split("\n").map((line) =>
    [...line.matchAll(/("(?:[^"]|"")*"|[^,]*)(?:,|$)/g)]
      .map((match) => match[1].replace(/^"|"$/g, "").replaceAll('""', '"')),
  );
  return rows.map((row) => Object.fromEntries(head.map((name, k) => [name, row[k]])));
}
