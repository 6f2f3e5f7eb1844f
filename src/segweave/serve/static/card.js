// What the card of a model says: what it was trained on, its scores, its limits.

import { by, make, table } from "./dom.js";

const number = (value) => (typeof value === "number" ? value.toFixed(3) : String(value));

// [[name, text]] of the scores of a card, which has numbers or groups of numbers.
function scoresOf(model) {
  const rows = [];
  for (const [name, value] of Object.entries(model.scores || {})) {
    if (value === null || ["checkpoint", "step", "epoch"].includes(name)) continue;
    if (typeof value !== "object") {
      rows.push([name, number(value)]);
      continue;
    }
    const parts = Object.entries(value).filter(([, one]) => one !== null);
    const words = parts.map(([key, one]) => `${key.replace(/^dice\//, "")} ${number(one)}`);
    rows.push([`Scores, ${name}`, words.join("; ")]);
  }
  return rows;
}

export function showCard(model, remark) {
  const data = model.training_data;
  const trained = data ? `${data.name}, ${data.cases} cases` : "its card does not say";
  const { channels, slices } = model.input;
  const network = [model.network, model.context].map((one) => one?.name ?? one).filter(Boolean);
  const scores = scoresOf(model);
  const rows = [
    ["Trained on", trained],
    ["Classes", Object.keys(model.colours).join(", ")],
    ["Reads", `${channels.join(", ")}; ${slices === 1 ? "one slice" : `${slices} slices`} at a time`],
    ["Network", network.join(" + ")],
    ["Parameters", model.parameters?.toLocaleString("en")],
    ...(scores.length ? scores : [["Scores", "none in its card"]]),
    ["Limits", model.limits || "none in its card: nobody wrote down where it fails"],
    ["Warning", `${remark[0].toUpperCase()}${remark.slice(1)}.`],
  ];
  by("model-about").textContent = `Trained on: ${trained}. Read its limits below.`;
  by("card").replaceChildren(
    table(["Model", model.name], rows.filter(([, text]) => text)),
  );
}
