// The part of the page that corrects a mask: tools, saving, download, and the data set.

import { json, linkTo } from "./api.js";
import { by, make, message, say } from "./dom.js";
import { Editor } from "./editor.js";
import { csv } from "./result.js";

export class Correct {
  constructor(result) {
    this.result = result;
    const { slices, stage } = result;
    this.editor = new Editor(stage, slices);
    this.editor.addEventListener("change", () => {
      result.drawSoon();
      this.buttons();
    });
    this.editor.colour = (id) =>
      result.looks.get(slices.view.classes.find((one) => one.id === id).name).colour;
    for (const one of slices.view.classes) {
      by("brush-class").append(make("option", { value: one.id }, one.name));
    }
    by("brush-class").addEventListener("change", () => {
      this.editor.id = Number(by("brush-class").value);
    });
    for (const radio of by("shown").querySelectorAll("[name=tool]")) {
      radio.addEventListener("change", () => {
        this.editor.tool = radio.value;
      });
    }
    by("brush-size").value = this.editor.size = Math.max(3, Math.round(slices.width / 24));
    result.range("brush-size", String, (value) => {
      this.editor.size = value;
    });
    by("correcting").addEventListener("change", () => {
      by("brushes").hidden = !by("correcting").checked;
      this.editor.activate(by("correcting").checked);
      this.buttons();
    });
    by("undo").addEventListener("click", () => this.editor.undo());
    by("redo").addEventListener("click", () => this.editor.redo());
    by("reset").addEventListener("click", () => this.editor.reset());
    slices.addEventListener("saving", () => this.state("saving…"));
    slices.addEventListener("saved", () => this.state());
    slices.addEventListener("refused", ({ detail }) => {
      by("saved").replaceChildren(message(detail.message, detail.status));
    });
    linkTo(by("corrected"), `${slices.path}/corrected`);
    by("measure").addEventListener("click", () => this.measure());
    this.collecting();
    this.state();
    this.buttons();
  }

  show(number, labels) {
    this.editor.show(number, labels);
    this.buttons();
  }

  state(text) {
    const count = this.result.slices.corrected.size;
    const saved = count === 1 ? "one slice is corrected and saved" : `${count} slices are corrected and saved`;
    by("saved").textContent = text || (count ? saved : "");
    const busy = Boolean(text);
    by("corrected").toggleAttribute("aria-disabled", busy);
    by("collect-add").disabled = busy;
  }

  buttons() {
    by("undo").disabled = !this.editor.can(this.editor.done);
    by("redo").disabled = !this.editor.can(this.editor.undone);
  }

  async measure() {
    by("measure").disabled = true;
    try {
      const rows = await csv(`${this.result.slices.path}/corrected/measurements`);
      this.result.measure(rows, "Of the corrected mask.");
      say("the corrected mask is measured");
    } catch (error) {
      by("saved").replaceChildren(message(error.message, error.status));
    } finally {
      by("measure").disabled = false;
    }
  }

  collecting() {
    by("collect-form").hidden = !this.result.page.collects;
    by("collect-how").hidden = this.result.page.collects;
    by("collect-add").addEventListener("click", async () => {
      if (!by("group").reportValidity()) return;
      by("collect-add").disabled = true;
      by("collected").textContent = "adding…";
      try {
        const group = encodeURIComponent(by("group").value.trim());
        const added = await json(`${this.result.slices.path}/collect?group=${group}`, {
          method: "POST",
        });
        const what = added.replaced ? "The mask of this image is replaced." : "Added.";
        const cases = added.cases === 1 ? "1 case" : `${added.cases} cases`;
        by("collected").replaceChildren(
          make("p", {}, `${what} The data set has ${cases}. A store is made of it by`),
          make("code", {}, added.command),
        );
      } catch (error) {
        by("collected").replaceChildren(message(error.message, error.status));
      } finally {
        by("collect-add").disabled = false;
      }
    });
  }
}
