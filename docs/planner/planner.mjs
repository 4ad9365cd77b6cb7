// The form of docs/planner.md. It loads Python (Pyodide) and the planner, asks it (bridge.py) and draws what it answers.
// The part of the address behind # carries the question.

const here = new URL(".", import.meta.url);
const form = document.getElementById("planner");
const fields = form.elements;
const state = document.getElementById("planner-state");
const progress = document.getElementById("planner-progress");
const place = document.getElementById("planner-answer");
const TEXTS = [
  ...["name", "config", "quantization", "objective"],
  ...["max_model_len", "nodes_per_engine", "weights_bytes", "kv_bytes_per_token"],
];
const PARTS = [["weights", "weights"], ["overhead", "overhead"], ["kv", "KV cache"]];
let python = null;

/** An element with attributes and children; a text is never read as HTML. */
function make(name, attributes = {}, ...children) {
  const node = ["svg", "rect", "line", "title"].includes(name)
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// ---- the question, in the form and in the address

/** What the planner is asked; null where the form is not complete. */
function question() {
  const own = !fields.model.value;
  if (!fields.count.checkValidity() || !fields.nodes_per_engine.checkValidity() || (own && !fields.config.value.trim())) return null;
  const asked = { model: fields.model.value, gpus: `${fields.count.value}x${fields.gpu.value}` };
  for (const name of TEXTS) {
    const value = fields[name].value.trim();
    if (value && (own || !["name", "config", "quantization"].includes(name))) asked[name] = value;
  }
  return asked;
}

function fill(asked) {
  const [, count, gpu] = /^(\d+)x(.+)$/.exec(asked.gpus ?? "") ?? [];
  if (count) fields.count.value = count;
  for (const [name, value] of Object.entries({ ...asked, gpu })) {
    const field = fields[name];
    if (!field || value === undefined || name === "gpus") continue;
    if (field.tagName !== "SELECT" || [...field.options].some((option) => option.value === value)) field.value = value;
  }
  show_own();
}

async function through(bytes, stream) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

/** Long texts, such as a config.json, are packed: a link has to fit where links go. */
async function packed(text) {
  const bytes = await through(new TextEncoder().encode(text), new CompressionStream("deflate-raw"));
  const letters = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
  return new TextDecoder().decode(await through(bytes, new DecompressionStream("deflate-raw")));
}

async function fragment(asked) {
  const { config, quantization, ...plain } = asked;
  const found = new URLSearchParams(Object.entries(plain).filter(([, value]) => value));
  for (const [name, text] of Object.entries({ config, quantization })) {
    if (text) found.set(name, await packed(text));
  }
  return `#${found}`;
}

/** The question in the address; none where a link was cut or is not ours. */
async function from_fragment() {
  try {
    return await read_fragment();
  } catch {
    return {};
  }
}

async function read_fragment() {
  const found = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  for (const name of ["config", "quantization"]) {
    if (found[name]) found[name] = await unpacked(found[name]);
  }
  return found.config ? { model: "", ...found } : found;
}

// ---- the answer

const gib = (number) => number.toFixed(1);

/** One GPU as a bar. What is needed may be more than there is: then the bar goes to what is needed. */
function bar(gpu) {
  const needed = gpu.weights + gpu.overhead + gpu.kv;
  const whole = Math.max(gpu.total, needed);
  const percent = (number) => `${((100 * number) / whole).toFixed(2)}%`;
  const words = needed ? told(gpu, needed) : `idle, ${gib(gpu.total)} GiB`;
  const drawn = make("svg", { class: "bar", role: "img", "aria-label": `${title(gpu)}: ${words}` });
  drawn.append(make("title", {}, words), make("rect", { class: "board", width: percent(gpu.total), height: "100%" }));
  let at = 0;
  for (const [key] of PARTS) {
    if (gpu[key]) drawn.append(make("rect", { class: key, x: percent(at), width: percent(gpu[key]), height: "100%" }));
    at += gpu[key];
  }
  const edge = percent(gpu.usable);
  if (needed) drawn.append(make("line", { class: "usable", x1: edge, x2: edge, y1: "0", y2: "100%" }));
  return [make("p", {}, `${title(gpu)}: ${words}`), drawn];
}

function told(gpu, needed) {
  const sizes = PARTS.filter(([key]) => gpu[key]).map(([key, words]) => `${words} ${gib(gpu[key])}`).join(", ");
  if (needed > gpu.usable + 0.05) return `${sizes}: ${gib(needed - gpu.usable)} GiB more than an engine may use`;
  return `${sizes}, free ${gib(gpu.total - needed)} of ${gib(gpu.total)} GiB`;
}

const title = (gpu) => (gpu.index === "" ? "Each GPU" : `GPU ${gpu.index}`);

function picture(answer) {
  const legend = make("p", {});
  for (const [key, words] of [...PARTS, ["free", "free"]]) {
    legend.append(make("span", { class: `key ${key}`, "aria-hidden": "true" }), `${words}  `);
  }
  const usable = gib(answer.gpus[0].usable);
  const about = answer.nearest ? `With ${answer.nearest}, which comes nearest, each GPU would need this.` : "";
  const line = `The dashed line is what an engine may use: ${usable} GiB.`;
  const caption = make("figcaption", {}, legend, make("p", {}, about ? `${about} ${line}` : line));
  return make("figure", {}, ...answer.gpus.flatMap(bar), caption);
}

function list(sentences) {
  return make("ol", {}, ...sentences.map((sentence) => make("li", {}, sentence)));
}

function rejected(ways) {
  const gains = ways.some((way) => way.gain);
  const names = ["choice", "why not", ...(gains ? ["it would be"] : [])];
  const head = make("tr", {}, ...names.map((words) => make("th", { scope: "col" }, words)));
  const rows = ways.map((way) => {
    const row = make("tr", {}, make("th", { scope: "row" }, way.choice), make("td", {}, way.reason));
    if (gains) row.append(make("td", {}, way.gain));
    return row;
  });
  return make("div", { class: "scroll", tabindex: "0" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

function commands(lines) {
  return lines.map((line) => {
    const copy = make("button", { type: "button", "aria-label": `Copy: ${line}` }, "Copy");
    copy.addEventListener("click", () => copied(copy, line));
    return make("div", { class: "command" }, make("pre", {}, line), copy);
  });
}

async function copied(button, text) {
  await navigator.clipboard.writeText(text);
  button.textContent = "Copied";
}

function draw(answer) {
  const parts = [];
  const section = (words, ...content) => parts.push(make("h2", {}, words), ...content);
  if (answer.findings.length) {
    section("It is not planned", make("div", { class: "lacking" }, ...answer.findings.map((text) => make("p", {}, text))));
  }
  if (answer.plan) {
    const entries = Object.entries(answer.plan).flatMap(([key, text]) => [make("dt", {}, key), make("dd", {}, text)]);
    section("The plan", make("dl", {}, ...entries));
    if (answer.warnings.length) parts.push(make("h3", {}, "To know"), list(answer.warnings));
  }
  if (answer.gpus.length) section("Memory of each GPU", picture(answer));
  if (answer.commands) section("To type", ...commands(answer.commands));
  if (answer.rejected.length) section("What was not chosen", rejected(answer.rejected));
  if (answer.text) section("As the playbook prints it", make("pre", { id: "planner-text", tabindex: "0" }, answer.text));
  if (answer.config) {
    const lines = JSON.stringify(answer.config, null, 2);
    parts.push(make("details", {}, make("summary", {}, "The configuration of vLLM"), make("pre", { tabindex: "0" }, lines)));
  }
  place.replaceChildren(...parts);
  place.hidden = false;
}

// ---- the work

let last = "";
let turn = 0;

async function plan() {
  const mine = ++turn;
  const asked = question();
  if (!python) return;
  if (!asked) {
    place.hidden = true;
    state.textContent = fields.count.checkValidity() ? "Paste the model's config.json." : "Give the number of GPUs.";
    return;
  }
  const address = await fragment(asked);
  // Somebody went on typing meanwhile: the newer question is answered.
  if (mine !== turn) return;
  last = address;
  history.replaceState(null, "", last);
  const began = performance.now();
  const answer = JSON.parse(python(JSON.stringify(asked)));
  draw(answer);
  const ended = answer.plan ? "Planned" : "Not planned";
  state.textContent = `${ended} in ${((performance.now() - began) / 1000).toFixed(2)} s. The address of this page now carries the question.`;
  window.answered = answer;
}

function show_own() {
  document.getElementById("planner-own").hidden = Boolean(fields.model.value);
}

/** fetch() that tells how many bytes have come. */
function counting(fetched, seen) {
  return async (...request) => {
    const response = await fetched(...request);
    if (!response.ok || !response.body) return response;
    const count = new TransformStream({
      transform(chunk, out) {
        seen(chunk.byteLength);
        out.enqueue(chunk);
      },
    });
    return new Response(response.body.pipeThrough(count), { headers: response.headers, status: response.status });
  };
}

async function load(bytes) {
  const fetched = window.fetch.bind(window);
  let come = 0;
  state.textContent = "Loading the planner.";
  window.fetch = counting(fetched, (size) => {
    come += size;
    progress.value = Math.min(come / bytes, 1);
    document.getElementById("planner-loaded").textContent = `${(come / 1e6).toFixed(1)} of ${(bytes / 1e6).toFixed(1)} MB`;
  });
  try {
    const archive = window.fetch(new URL("planner.zip", here)).then((response) => response.arrayBuffer());
    const { loadPyodide } = await import(new URL("pyodide/pyodide.mjs", here));
    const pyodide = await loadPyodide({ indexURL: new URL("pyodide/", here).href });
    pyodide.unpackArchive(await archive, "zip", { extractDir: "/planner" });
    state.textContent = "Starting the planner.";
    return pyodide.runPython("import sys; sys.path.insert(0, '/planner'); import bridge; bridge.answer");
  } finally {
    window.fetch = fetched;
  }
}

function offer(choices) {
  for (const [family, models] of Object.entries(choices.families)) {
    const options = models.map(([key, words]) => make("option", { value: key }, `${words} (${key})`));
    fields.model.append(make("optgroup", { label: family }, ...options));
  }
  fields.model.value = choices.families[Object.keys(choices.families)[0]][0][0];
  for (const [key, words] of choices.gpus) fields.gpu.append(make("option", { value: key }, `${words} (${key})`));
  fields.gpu.value = "h100";
  for (const key of choices.objectives) fields.objective.append(make("option", { value: key }, key));
}

async function start() {
  const choices = await (await fetch(new URL("choices.json", here))).json();
  offer(choices);
  fill(await from_fragment());
  const began = performance.now();
  python = await load(choices.bytes);
  document.getElementById("planner-loading").hidden = true;
  form.querySelector("button").disabled = false;
  state.textContent = `vLLM ${choices.version}; loaded in ${((performance.now() - began) / 1000).toFixed(1)} s.`;
  await plan();
}

function failed(error) {
  document.getElementById("planner-loading").hidden = true;
  place.hidden = true;
  state.textContent = `The planner failed: ${error.message ?? error}`;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  plan().catch(failed);
});
form.addEventListener("change", () => {
  show_own();
  plan().catch(failed);
});
window.addEventListener("hashchange", async () => {
  if (location.hash === last) return;
  fill(await from_fragment());
  await plan();
});
start().catch(failed);
