// Small helpers for elements. Text always goes in as text, never as markup.

export const by = (id) => document.getElementById(id);

export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role" || key === "for") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

// What helps where the service does not say it, by status code.
const REMEDIES = {
  404: "send the image again",
  413: "crop the image, or ask the operator to raise the limit",
  415: "choose an image of a kind that is listed above",
  422: "look whether another program opens the file, then save it again as one image",
  500: "ask the operator to look at the log",
  507: "ask the operator to free some space",
};

// A message of the service: what was being done, then expected, found, what to do.
export function message(text, status = 0) {
  const [first, ...lines] = text.split("\n").map((line) => line.trim()).filter(Boolean);
  if (REMEDIES[status] && !text.includes("what to do: ")) {
    lines.push(`what to do: ${REMEDIES[status]}`);
  }
  const list = make("dl");
  for (const line of lines) {
    const at = line.indexOf(": ");
    const known = ["expected", "found", "what to do"].includes(line.slice(0, at));
    list.append(
      ...(known ? [make("dt", {}, line.slice(0, at))] : []),
      make("dd", {}, known ? line.slice(at + 2) : line),
    );
  }
  return make("div", { className: "alarm" }, make("strong", {}, first || "failed"), list);
}

// A model, and the one that removed the noise before it.
export const called = ({ model, denoise }) => (denoise ? `${model} after ${denoise}` : model);

export function say(text) {
  by("status").textContent = text;
}

export function table(head, rows) {
  const cells = (row, name) => row.map((cell) => make(name, {}, cell));
  const columns = head.map((cell) => make("th", { scope: "col" }, cell));
  const lines = rows.map(([first, ...rest]) =>
    make("tr", {}, make("th", { scope: "row" }, first), ...cells(rest, "td")),
  );
  return make(
    "table",
    {},
    make("thead", {}, make("tr", {}, ...columns)),
    make("tbody", {}, ...lines),
  );
}
