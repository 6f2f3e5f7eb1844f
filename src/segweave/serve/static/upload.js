// Chosen or dropped files become jobs: a file with the ending of an image is one job, all other
// files of a folder are together one DICOM series.

import { back, headers, Refused, refusal, wait } from "./api.js";
import { make } from "./dom.js";

export const endings = [];
const MOST_CUT = 3; // attempts that fail although the service is there

function isImage(name) {
  const lower = name.toLowerCase();
  return endings.some((ending) => lower.endsWith(ending));
}

// [{name, path}] of a drop; folders are read to their ends.
async function walk(entry, path = "") {
  if (entry.isFile) {
    const file = await new Promise((done, fail) => entry.file(done, fail));
    return [{ file, folder: path }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!some.length) return found;
    for (const one of some) found.push(...(await walk(one, `${path}${entry.name}/`)));
  }
}

export async function dropped(data) {
  const entries = [...data.items]
    .filter((item) => item.kind === "file")
    .map((item) => item.webkitGetAsEntry?.() || item.getAsFile());
  const found = [];
  for (const entry of entries) {
    if (!entry) continue;
    if (entry instanceof File) found.push({ file: entry, folder: "" });
    else found.push(...(await walk(entry)));
  }
  return found;
}

export function chosen(list) {
  return [...list].map((file) => {
    const path = file.webkitRelativePath || "";
    return { file, folder: path.slice(0, path.lastIndexOf("/") + 1) };
  });
}

// [{name, files}], one for each job.
export function grouped(found) {
  const jobs = [];
  const series = new Map();
  for (const { file, folder } of found) {
    if (file.name.startsWith(".") || file.name.toUpperCase() === "DICOMDIR") continue;
    if (isImage(file.name)) jobs.push({ name: file.name, files: [file] });
    else series.set(folder, [...(series.get(folder) || []), file]);
  }
  for (const [folder, files] of series) {
    const name = folder ? folder.replace(/\/$/, "").split("/").pop() : files[0].name;
    jobs.push({ name: files.length > 1 ? `${name} (${files.length} files)` : name, files });
  }
  return jobs;
}

export function tooMuch(job, limits) {
  const size = job.files.reduce((sum, file) => sum + file.size, 0);
  if (job.files.length > limits.files) {
    return `${job.name}\nexpected: at most ${limits.files} files\nfound: ${job.files.length}`;
  }
  if (size > limits.bytes) {
    const mib = (value) => `${(value / 2 ** 20).toFixed(0)} MiB`;
    return (
      `${job.name}\nexpected: at most ${mib(limits.bytes)}\nfound: ${mib(size)}\n` +
      "what to do: crop the image, or ask the operator to raise --limit-mib"
    );
  }
  return "";
}

function post(form, sent) {
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/jobs");
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => sent(event.loaded, event.total));
    request.addEventListener("load", () => {
      const after = request.getResponseHeader("Retry-After");
      const more = after ? { "Retry-After": after } : {};
      done(new Response(request.responseText, { status: request.status, headers: more }));
    });
    request.addEventListener("error", fail);
    request.addEventListener("abort", fail);
    request.send(form);
  });
}

// Sends one job; waits where the queue is full, sends again where the connection was lost.
export async function send(job, fields, place) {
  const bar = make("progress", { max: 1, value: 0, "aria-label": `Sending ${job.name}` });
  const text = make("span");
  const line = make("div", { className: "sending" }, text, bar);
  place.append(line);
  let cut = 0;
  try {
    for (;;) {
      text.textContent = `sending ${job.name}`;
      const form = new FormData();
      for (const [name, value] of Object.entries(fields)) form.append(name, value);
      for (const file of job.files) form.append("files", file, file.name);
      let answer;
      try {
        answer = await post(form, (loaded, total) => {
          bar.max = total;
          bar.value = loaded;
          if (loaded === total) text.textContent = `${job.name} is checked`;
        });
      } catch {
        await readable(job);
        text.textContent = `${job.name} waits for the connection`;
        cut = (await back()) ? 0 : cut + 1;
        if (cut === MOST_CUT) {
          throw new Refused(
            0,
            "sending\nfound: the service ends the connection each time\n" +
              "what to do: look whether the image is over a limit, and ask the operator",
          );
        }
        continue;
      }
      if (answer.status < 300) return await answer.json();
      const error = await refusal(answer);
      if (![429, 503].includes(error.status)) throw error;
      text.textContent = `${job.name} waits: the queue of the service is full`;
      await wait(1000 * (error.after || 2));
    }
  } finally {
    line.remove();
  }
}

// A file that was changed or moved since it was chosen looks like a lost connection.
async function readable(job) {
  for (const file of job.files) {
    try {
      await file.slice(0, 1).arrayBuffer();
    } catch {
      throw new Refused(
        0,
        `reading ${file.name}\nfound: it has changed since it was chosen\nwhat to do: choose it again`,
      );
    }
  }
}
