// The images that this browser has sent: kept in its own storage, followed until they end.

import { ask, connection, follow, json, wait } from "./api.js";
import { by, called, make, message, say } from "./dom.js";

const STORE = "segweave-jobs";
const STREAMS = 2; // a browser opens six connections to a service; the others ask now and then
const POLL = 2000;
const OVER = ["done", "failed", "deleted"];

export class Jobs extends EventTarget {
  constructor() {
    super();
    this.list = stored();
    this.states = new Map();
    this.followed = new Map();
    this.items = new Map();
    connection.addEventListener("back", () => this.fill());
    by("order").addEventListener("change", () => this.arrange());
  }

  start() {
    for (const job of this.list) this.show(job);
    this.fill();
    this.poll();
  }

  keep() {
    try {
      localStorage.setItem(STORE, JSON.stringify(this.list));
    } catch {
      // A browser that stores nothing: the list lasts as long as the page.
    }
    by("no-jobs").hidden = this.list.length > 0;
  }

  // `job` is the service's answer; `source` the first job of the same image.
  add(job, name, source = job.id) {
    if (this.list.some((one) => one.id === job.id)) return;
    this.list.unshift({ id: job.id, name, model: job.model, denoise: job.denoise, source });
    this.keep();
    this.change(job);
    this.fill();
  }

  find(id) {
    return this.list.find((one) => one.id === id);
  }

  state(id) {
    return this.states.get(id);
  }

  unfinished() {
    return this.list
      .filter((one) => !OVER.includes(this.states.get(one.id)?.state))
      .reverse();
  }

  // Streams for the jobs that come next.
  fill() {
    for (const { id } of this.unfinished()) {
      if (this.followed.size >= STREAMS) return;
      if (this.followed.has(id)) continue;
      const control = new AbortController();
      this.followed.set(id, control);
      follow(id, (job) => this.change(job), control.signal).finally(() => {
        this.followed.delete(id);
        if (OVER.includes(this.states.get(id)?.state)) this.fill();
      });
    }
  }

  async poll() {
    for (;;) {
      for (const { id } of this.unfinished()) {
        if (this.followed.has(id)) continue;
        try {
          this.change(await json(`/jobs/${id}`));
        } catch (error) {
          if (error.status === 404) this.change({ id, state: "deleted" });
        }
      }
      await wait(POLL);
    }
  }

  change(state) {
    const job = this.find(state.id);
    if (!job) return;
    const before = this.states.get(job.id);
    this.states.set(job.id, state);
    this.show(job);
    if (before?.state !== state.state || quarter(before) !== quarter(state)) {
      say(`${job.name}: ${words(state)}`);
    }
    this.dispatchEvent(new CustomEvent("change", { detail: { job, state, before } }));
  }

  show(job) {
    const state = this.states.get(job.id);
    let item = this.items.get(job.id);
    if (!item) {
      item = this.item(job);
      this.items.set(job.id, item);
      this.keep();
    }
    this.arrange();
    item.querySelector(".state").textContent = state ? words(state) : "…";
    const bar = item.querySelector("progress");
    const waiting = !state || ["queued", "running"].includes(state.state);
    bar.hidden = !waiting;
    if (state?.progress?.total) {
      bar.max = state.progress.total;
      bar.value = state.progress.done;
    } else {
      bar.removeAttribute("value");
    }
    item.querySelector(".open").hidden = state?.state !== "done";
    const place = item.querySelector(".why");
    place.replaceChildren(...(state?.error ? [message(state.error.message, state.error.status)] : []));
  }

  // The items in the chosen order; where the doubt is not known they come last.
  arrange() {
    const doubt = ({ id }) => this.states.get(id)?.doubt ?? -1;
    const list = [...this.list];
    by("order-choice").hidden = list.filter((one) => doubt(one) >= 0).length < 2;
    if (by("order").value && !by("order-choice").hidden) list.sort((a, b) => doubt(b) - doubt(a));
    const items = list.map(({ id }) => this.items.get(id)).filter(Boolean);
    if (items.every((item, k) => by("jobs").children[k] === item)) return;
    const focused = document.activeElement;
    by("jobs").append(...items);
    if (by("jobs").contains(focused)) focused.focus();
  }

  item(job) {
    const open = make("button", { type: "button", className: "open", hidden: true }, "Open");
    open.setAttribute("aria-label", `Open ${job.name}, ${called(job)}`);
    open.addEventListener("click", () =>
      this.dispatchEvent(new CustomEvent("open", { detail: job.id })),
    );
    const remove = make("button", { type: "button", className: "quiet" }, "Delete");
    remove.setAttribute("aria-label", `Delete ${job.name}, ${called(job)}`);
    remove.addEventListener("click", () => this.remove(job, remove));
    const bar = make("progress", { "aria-label": `Progress of ${job.name}` });
    return make(
      "li",
      {},
      make("span", { className: "name" }, job.name),
      make("span", { className: "model" }, called(job)),
      make("span", { className: "state" }),
      bar,
      make("div", { className: "why" }),
      make("div", { className: "row" }, open, remove),
    );
  }

  async remove(job, button) {
    button.disabled = true;
    try {
      await ask(`/jobs/${job.id}`, { method: "DELETE" });
    } catch (error) {
      if (error.status !== 404) {
        button.disabled = false;
        this.items.get(job.id).querySelector(".why").replaceChildren(message(error.message, error.status));
        return;
      }
    }
    this.followed.get(job.id)?.abort();
    this.list = this.list.filter((one) => one !== job);
    this.states.delete(job.id);
    this.items.get(job.id).remove();
    this.items.delete(job.id);
    this.keep();
    this.arrange();
    this.fill();
    say(`${job.name} is deleted, here and on the service`);
    by("jobs-title").focus();
    this.dispatchEvent(new CustomEvent("removed", { detail: job.id }));
  }
}

function stored() {
  try {
    const list = JSON.parse(localStorage.getItem(STORE));
    return Array.isArray(list) ? list.filter((one) => one?.id && one.name) : [];
  } catch {
    return [];
  }
}

// How many quarters of a job are done: so often it is announced.
function quarter({ progress }) {
  return progress?.total ? Math.floor((4 * progress.done) / progress.total) : 0;
}

function words(state) {
  if (state.state === "queued") {
    if (!state.ahead) return "next in the queue";
    return `in the queue, ${state.ahead} before it`;
  }
  if (state.state === "running") {
    const { done, total } = state.progress;
    return total ? `running, slice ${Math.floor(done)} of ${total}` : "running";
  }
  if (state.state === "deleted") return "no longer on the service: its time was over";
  if (state.state === "done" && state.doubt != null) return `done, doubt ${state.doubt.toFixed(3)}`;
  return state.state;
}
