// Puts the page together: models, upload, the list of images, and the result that is open.

import { connection, json, setToken, watch } from "./api.js";
import { showCard } from "./card.js";
import { Slices } from "./data.js";
import { by, make, message, say } from "./dom.js";
import { Jobs } from "./jobs.js";
import { Result } from "./result.js";
import { chosen, dropped, endings, grouped, send, tooMuch } from "./upload.js";

const jobs = new Jobs();
let service = { models: [], limits: {} };
let page = {};
let result = null;
let opening = 0;
let sending = Promise.resolve();
const opens = new Set(); // jobs that open by themselves when they are done

async function start() {
  try {
    [service, page] = await Promise.all([json("/models"), json("/page")]);
  } catch (error) {
    if (error.status !== 401) by("refused").replaceChildren(message(error.message, error.status));
    return;
  }
  endings.push(...page.endings);
  by("kinds").textContent = `${page.endings.join(" ")} or DICOM; at most ${Math.round(
    service.limits.bytes / 2 ** 20,
  )} MiB.`;
  // Models that predict an image can only remove its noise.
  const segments = (one) => one.target.kind !== "image";
  const denoisers = service.models.filter((one) => !segments(one));
  service.models = service.models.filter(segments);
  service.denoisers = denoisers.map((one) => one.name);
  by("model").replaceChildren(...service.models.map((one) => make("option", {}, one.name)));
  by("denoise").append(...denoisers.map((one) => make("option", {}, one.name)));
  by("denoise-choice").hidden = !denoisers.length;
  by("uncertainty-choice").hidden = !page.fields.includes("uncertainty");
  by("model").addEventListener("change", about);
  about();
  jobs.start();
  await fromAddress();
}

// #jobs=ID~SOURCE~NAME,...: jobs that another program has sent for this browser, the first on top;
// SOURCE is the first job of the same image.
async function fromAddress() {
  const listed = /^#jobs=(.+)$/.exec(location.hash);
  if (!listed) return;
  history.replaceState(null, "", location.pathname);
  const parts = listed[1].split(",").map((part) => part.split("~"));
  opens.add(parts[0][0]);
  for (const [id, source, ...name] of parts.reverse()) {
    try {
      const job = await json(`/jobs/${encodeURIComponent(id)}`);
      jobs.add(job, decodeURIComponent(name.join("~")), source);
    } catch (error) {
      by("refused").append(message(error.message, error.status));
    }
  }
}

function about() {
  const model = service.models.find((one) => one.name === by("model").value);
  if (model) showCard(model, service.remark);
}

// One upload after the other, in the order in which they were chosen.
function take(found) {
  by("refused").replaceChildren();
  const fields = {
    model: by("model").value,
    geometry: by("geometry").value,
    probabilities: by("probabilities").checked,
  };
  if (by("denoise").value) fields.denoise = by("denoise").value;
  if (page.fields.includes("uncertainty") && by("uncertainty").checked) {
    fields.uncertainty = "entropy";
  }
  const batch = grouped(found);
  if (!batch.length) by("refused").append(message("no file to send\nwhat to do: choose an image"));
  batch.forEach((job, k) => {
    const large = tooMuch(job, service.limits);
    if (large) {
      by("refused").append(message(large));
      return;
    }
    sending = sending.then(async () => {
      try {
        const answer = await send(job, fields, by("sending"));
        if (k === 0) opens.add(answer.id);
        jobs.add(answer, job.name);
        say(`${job.name} is accepted`);
      } catch (error) {
        // The message names the option of the command; here it is one of the page.
        if (error.message.includes("--geometry")) by("options").open = true;
        by("refused").append(message(`${job.name}: ${error.message}`, error.status));
      }
    });
  });
}

async function open(id, focus) {
  const call = (opening += 1);
  const [job, state] = [jobs.find(id), jobs.state(id)];
  if (!job || state?.state !== "done") return;
  opens.clear();
  try {
    const slices = await Slices.of(id);
    if (call !== opening) return;
    result?.close();
    result = new Result(job, state, jobs, service, page, slices);
    if (focus) by("result-title").focus();
    else if (matchMedia("(max-width: 52rem)").matches) by("result").scrollIntoView();
  } catch (error) {
    by("refused").replaceChildren(message(error.message, error.status));
  }
}

jobs.addEventListener("open", ({ detail }) => open(detail, true));
jobs.addEventListener("removed", ({ detail }) => {
  if (result?.job.id !== detail) return;
  result.close();
  result = null;
});
jobs.addEventListener("change", ({ detail }) => {
  if (detail.state.state === "done" && opens.delete(detail.job.id)) open(detail.job.id, false);
});

connection.addEventListener("lost", () => {
  by("connection").textContent =
    "The connection to the service is lost. It is tried again by itself; nothing is lost: what was " +
    "accepted is done, and corrections are kept here until they are saved.";
  by("connection").hidden = false;
});
connection.addEventListener("back", () => {
  by("connection").hidden = true;
  say("the connection is back");
});
connection.addEventListener("token", () => {
  by("token").hidden = false;
  by("token-value").focus();
});
by("token").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(by("token-value").value.trim());
  location.reload();
});

for (const [button, input] of [["choose-files", "files"], ["choose-folder", "folder"]]) {
  by(button).addEventListener("click", () => by(input).click());
  by(input).addEventListener("change", () => {
    take(chosen(by(input).files));
    by(input).value = "";
  });
}
const drop = by("drop");
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take(await dropped(event.dataTransfer));
});
window.addEventListener("beforeunload", (event) => {
  if (result?.slices.unsaved.size) event.preventDefault();
});

watch();
start();
