// The slices of one result: fetched when they are looked at, the neighbours beforehand, and labels
// that were corrected are saved as soon as they change.

import { blob, bytes, json } from "./api.js";

const MOST = 90; // pictures, labels and maps that are kept

class Cache {
  constructor() {
    this.held = new Map();
  }

  // What `load` gives for a key, loaded once.
  get(key, load) {
    const there = this.held.get(key);
    this.held.delete(key);
    const value = there || load();
    this.held.set(key, value);
    if (!there) value.catch(() => this.held.delete(key));
    if (this.held.size > MOST) this.held.delete(this.held.keys().next().value);
    return value;
  }

  set(key, value) {
    this.held.set(key, Promise.resolve(value));
  }
}

export class Slices extends EventTarget {
  constructor(view) {
    super();
    this.view = view;
    this.path = `/jobs/${view.id}`;
    [this.height, this.width] = view.size;
    this.pixels = this.width * this.height;
    const [rows, columns] = view.steps || [1, 1];
    const least = Math.min(rows, columns);
    // Pixels in their true proportions; a header may claim any.
    this.tall = this.height * Math.min(rows / least, 8);
    this.wide = this.width * Math.min(columns / least, 8);
    this.corrected = new Set(view.corrected);
    this.unsaved = new Map();
    this.cache = new Cache();
    this.saving = null;
  }

  static async of(id) {
    return new Slices(await json(`/jobs/${id}/view`));
  }

  picture(name, number) {
    return this.cache.get(`${name} ${number}`, async () =>
      createImageBitmap(await blob(`${this.path}/pictures/${name}/${number}`)),
    );
  }

  labels(number) {
    const unsaved = this.unsaved.get(number);
    if (unsaved) return Promise.resolve(unsaved);
    return this.cache.get(`labels ${number}`, () => bytes(`${this.path}/labels/${number}`));
  }

  network(number) {
    return bytes(`${this.path}/labels/${number}?corrected=false`);
  }

  map(name, number) {
    return name
      ? this.cache.get(`map ${name} ${number}`, () => bytes(`${this.path}/maps/${name}/${number}`))
      : Promise.resolve(null);
  }

  async slice(number, picture, map) {
    const [image, labels, heat] = await Promise.all([
      this.picture(picture, number),
      this.labels(number),
      this.map(map, number),
    ]);
    return { image, labels, heat };
  }

  ahead(number, picture, map) {
    for (const step of [1, -1, 2, -2]) {
      const next = number + step;
      if (next >= 1 && next <= this.view.slices) {
        this.slice(next, picture, map).catch(() => {});
      }
    }
  }

  // The mask of a class in labels: whether pixel k is in it.
  has(labels, id, k) {
    return this.view.overlapping ? labels[id * this.pixels + k] > 0 : labels[k] === id;
  }

  keep(number, labels) {
    this.unsaved.set(number, labels);
    this.cache.set(`labels ${number}`, labels);
    this.saving ??= this.save().finally(() => {
      this.saving = null;
    });
  }

  // One slice after the other; what changes meanwhile is saved again.
  async save() {
    while (this.unsaved.size) {
      const [number, labels] = this.unsaved.entries().next().value;
      const sent = labels.slice();
      this.dispatchEvent(new Event("saving"));
      try {
        const answer = await json(`${this.path}/labels/${number}`, {
          method: "PUT",
          body: sent,
          headers: { "Content-Type": "application/octet-stream" },
        });
        this.corrected = new Set(answer.corrected);
      } catch (error) {
        this.dispatchEvent(new CustomEvent("refused", { detail: error }));
        return;
      }
      if (sent.every((value, k) => value === labels[k])) this.unsaved.delete(number);
    }
    this.dispatchEvent(new Event("saved"));
  }
}
