// Two models on the same image: the other result is looked up or asked for, shown beside the first
// with the same slider, and then their difference and their agreement.

import { json } from "./api.js";
import { Slices } from "./data.js";
import { by, called, make, message, table } from "./dom.js";
import { DIFFERENCE, drawDifference } from "./draw.js";
import { Stage } from "./stage.js";

// The other models on the same picture, then the same model with its noise removed otherwise or not
// at all.
function othersOf({ models, denoisers, slices: { view } }) {
  const others = models.filter((one) => one.name !== view.model);
  return [
    ...others.map((one) => ({ model: one.name, denoise: view.denoise })),
    ...["", ...denoisers]
      .filter((denoise) => denoise !== view.denoise)
      .map((denoise) => ({ model: view.model, denoise })),
  ];
}

export class Compare {
  constructor(result) {
    this.result = result;
    this.slices = null;
    this.others = othersOf(result);
    by("other").replaceChildren(...this.others.map((one) => make("option", {}, called(one))));
    if (!this.others.length) {
      by("other").disabled = by("compare").disabled = true;
      by("compare-state").textContent =
        "The service has one model. With two (segweave serve A B) they are compared here.";
    }
    by("compare").addEventListener("click", () => this.start(this.others[by("other").selectedIndex]));
    by("compare-end").addEventListener("click", () => {
      this.end();
      by("compare").focus();
    });
  }

  async start(wanted) {
    const { jobs, job } = this.result;
    by("compare").disabled = true;
    try {
      const there = jobs.list.find(
        (one) =>
          one.source === job.source && called(one) === called(wanted) && jobs.state(one.id)?.state !== "failed" &&
          jobs.state(one.id)?.state !== "deleted",
      );
      const other = there || (await this.again(wanted));
      by("compare-state").textContent = `waiting for ${called(wanted)}`;
      const state = await this.finished(other.id);
      if (this.result.closed) return;
      if (state.state !== "done") {
        by("compare-state").replaceChildren(message(state.error?.message || "the job was deleted"));
        return;
      }
      await this.show(other);
    } catch (error) {
      by("compare-state").replaceChildren(message(error.message, error.status));
    } finally {
      by("compare").disabled = false;
    }
  }

  async again(wanted) {
    const { jobs, job } = this.result;
    const answer = await json(`/jobs/${job.id}/again?${new URLSearchParams(wanted)}`, {
      method: "POST",
    });
    jobs.add(answer, job.name, job.source);
    return jobs.find(answer.id);
  }

  finished(id) {
    const { jobs } = this.result;
    const over = (state) => state && !["queued", "running"].includes(state.state);
    return new Promise((done) => {
      if (over(jobs.state(id))) return done(jobs.state(id));
      const hear = ({ detail }) => {
        if (detail.job.id !== id || !over(detail.state)) return;
        jobs.removeEventListener("change", hear);
        done(detail.state);
      };
      return jobs.addEventListener("change", hear);
    });
  }

  async show(other) {
    this.end();
    const { result } = this;
    const [slices, agreement] = await Promise.all([
      Slices.of(other.id),
      json(`/jobs/${result.job.id}/agreement/${other.id}`),
    ]);
    this.slices = slices;
    this.stage = new Stage(called(slices.view), slices);
    this.difference = new Stage("difference", result.slices);
    for (const stage of [this.stage, this.difference]) result.hear(stage);
    result.addLooks(slices.view);
    by("stages").append(this.stage.figure, this.difference.figure);
    for (const id of ["stages", "bench"]) by(id).classList.add("several");
    const colour = ([r, g, b]) => `#${[r, g, b].map((v) => v.toString(16).padStart(2, "0")).join("")}`;
    const key = (name, text) => {
      const mark = make("span", { className: "mark" });
      mark.style.background = colour(DIFFERENCE[name]);
      return make("li", {}, mark, text);
    };
    this.difference.figure.append(
      make(
        "ul",
        { className: "key-list" },
        key("first", `only ${called(result.slices.view)}`),
        key("second", `only ${called(slices.view)}`),
        key("other", "another class in each"),
        key("both", "both"),
      ),
    );
    const number = (value) => value.toLocaleString("en");
    by("agreement").replaceChildren(
      table(
        ["Class", "Dice", `${called(result.slices.view)}, px`, `${called(slices.view)}, px`],
        agreement.map((one) => [
          one.name, one.dice === null ? "in neither" : one.dice.toFixed(3), number(one.first),
          number(one.second),
        ]),
      ),
      make("p", { className: "hint" },
        "Dice between the two models over all slices: how far they agree, not how right they are. " +
        "Corrections do not count."),
    );
    by("agreement-part").hidden = false;
    by("compare-state").textContent = `${called(result.slices.view)} and ${called(slices.view)}`;
    by("compare-end").hidden = false;
    await result.refresh();
  }

  end() {
    if (!this.slices) return;
    this.stage.figure.remove();
    this.difference.figure.remove();
    for (const id of ["stages", "bench"]) by(id).classList.remove("several");
    by("agreement-part").hidden = true;
    by("compare-state").textContent = "";
    by("compare-end").hidden = true;
    this.slices = null;
    this.result.refresh();
  }

  fit(zoom) {
    if (!this.slices) return;
    this.stage.fit(zoom);
    this.difference.fit(zoom);
  }

  load(number, picture, map) {
    if (!this.slices) return null;
    const { view } = this.slices;
    this.slices.ahead(number, "image", "");
    return this.slices.slice(
      number,
      view.pictures.includes(picture) ? picture : "image",
      view.maps.includes(map) ? map : "",
    );
  }

  draw(one, two, drawSlice) {
    const { result } = this;
    if (!this.slices || !two) return;
    drawSlice(this.stage.canvas, this.slices, two, result.looks, result.display);
    drawDifference(
      this.difference.canvas, result.slices, this.slices, { ...one, heat: null }, two, result.looks,
    );
    const where = `slice ${result.number} of ${result.slices.view.slices}`;
    this.stage.describe(`${called(this.slices.view)}, ${where}`);
    this.difference.describe(`Difference of the two models, ${where}`);
  }
}
