// Asks the service. A lost connection is announced, and what was asked is asked again when the
// service answers; what the service refuses is an error with its message.

export class Refused extends Error {
  constructor(status, message, after = 0) {
    super(message);
    this.status = status;
    this.after = after;
  }
}

// "lost" and "back" when the connection changes, "token" when the service asks for one.
export const connection = new EventTarget();

const TOKEN = "segweave-token";
const PAUSES = [500, 1000, 2000, 3000];
let token = sessionStorage.getItem(TOKEN) || "";
let returning = null;

export const hasToken = () => token !== "";

export function setToken(value) {
  token = value;
  sessionStorage.setItem(TOKEN, value);
}

export const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

export const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

async function answers() {
  try {
    return (await fetch("/health", { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

// Resolves when the service answers: true after a loss, false where it had been there all along.
export function back() {
  returning ??= (async () => {
    await wait(200);
    if (await answers()) {
      returning = null;
      return false;
    }
    connection.dispatchEvent(new Event("lost"));
    for (let attempt = 0; ; attempt += 1) {
      await wait(PAUSES[Math.min(attempt, PAUSES.length - 1)]);
      if (await answers()) break;
    }
    returning = null;
    connection.dispatchEvent(new Event("back"));
    return true;
  })();
  return returning;
}

// Looks now and then whether the service is there, so that a loss is seen before it hurts.
export async function watch() {
  for (;;) {
    await wait(5000);
    if (!document.hidden && !returning && !(await answers())) await back();
  }
}

export async function refusal(answer) {
  let message = `the service answered with status ${answer.status}`;
  try {
    message = (await answer.json()).message || message;
  } catch {
    // It was no answer of the service itself.
  }
  const error = new Refused(answer.status, message, Number(answer.headers.get("Retry-After")));
  if (answer.status === 401) connection.dispatchEvent(new Event("token"));
  return error;
}

export async function ask(path, options = {}) {
  for (;;) {
    let answer;
    try {
      const more = { ...options.headers, ...headers() };
      answer = await fetch(path, { ...options, headers: more, cache: "no-store" });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      await back();
      continue;
    }
    if (answer.ok) return answer;
    throw await refusal(answer);
  }
}

export const json = async (path, options) => (await ask(path, options)).json();

// The body may break off as well; then all of it is asked for again.
async function whole(path, read) {
  for (;;) {
    const answer = await ask(path);
    try {
      return await read(answer);
    } catch {
      await back();
    }
  }
}

export const bytes = (path) =>
  whole(path, async (answer) => new Uint8Array(await answer.arrayBuffer()));
export const blob = (path) => whole(path, (answer) => answer.blob());

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(
        part.split("\n").map((line) => {
          const at = line.indexOf(": ");
          return [line.slice(0, at), line.slice(at + 2)];
        }),
      );
      if (fields.data) yield fields;
    }
  }
}

// Follows a job until it ends; a stream that breaks off is taken up at its last event.
export async function follow(id, changed, signal) {
  let last = "";
  while (!signal.aborted) {
    try {
      const more = last ? { "Last-Event-ID": last } : {};
      const answer = await ask(`/jobs/${id}/events`, { headers: more, signal });
      for await (const event of events(answer.body)) {
        last = event.id || last;
        changed(JSON.parse(event.data));
        if (event.event === "end") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status !== 503) {
        if (error.status === 404) changed({ id, state: "deleted" });
        return;
      }
    }
    // The stream ended without the job: the service stops, or the line is cut.
    await back();
  }
}

// A link to a file of the service. Where a token is needed a plain link can't send it.
export function linkTo(link, path) {
  link.href = path;
  link.addEventListener("click", async (event) => {
    if (!hasToken()) return;
    event.preventDefault();
    const answer = await ask(link.getAttribute("href"));
    const named = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") || "");
    const address = URL.createObjectURL(await answer.blob());
    const plain = document.createElement("a");
    plain.href = address;
    plain.download = named ? named[1] : "result";
    plain.click();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
  });
}
