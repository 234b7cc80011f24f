// Opens the editor of a running ComfyUI host in a headless browser, loads workflows into it and prints what it sees.
//
//   node browser.mjs '{"url": "http://127.0.0.1:8188", "task": "check", "workflows": [{"path": "flow.json"}]}'
//
// task "check":   loads each file (editor form or API form) by the editor's own function, a PNG by dropping it on the canvas.
// task "convert": loads API-form files and lays them out; each report then holds the editor form as `workflow`.
// task "build":   makes graphs on an empty canvas as a user does, who finds nodes by searching for their names. Each file
//                 says {"nodes": [{"search": "VAE Decode", "type": "VAEDecode", "pos": [x, y]}, ...],
//                 "links": [[from, output, to, input], ...], "complete": {"type", "widget", "typed", "label"}}: nodes by
//                 their place in the list, slots by their names, and a text that is typed and completed by a suggestion;
//                 without a "label" it is only typed.
//                 A node without "search" is put there at once.
//                 Also: "values": [[node, widget, value], ...]; "run": true presses Run and waits, with "leave": true where
//                 a copy of the graph is open, with "reload": true in a page that is loaded again before, with "undo": true an undo
//                 later; "enclose": [node, ...] puts nodes into a subgraph and opens it, or with
//                 "promote" shows the text of the first one's input of that name around it; "drop":
//                 [node, "outputs" or "inputs", slot, choice] drops a new link of a slot on the canvas and chooses from the
//                 menu that the editor shows then.
// Optional: "chromium" (the browser's path), "seconds" (how long to wait for the editor), "settings" of the editor, and
// for each workflow "screenshot" (a PNG path).
// Output: a JSON list with one object per workflow, see `inspectGraph` below; exit status 1 and {"failure": ...} when
// the editor did not come up. playwright-core is found beside this file or through NODE_PATH.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename } from "node:path";

const { chromium } = createRequire(import.meta.url)("playwright-core");

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
  // The editor asks services on the internet for news and accounts; a test must neither need nor touch them.
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
];

/** Runs in the page: what the editor made of the workflow. */
async function inspectGraph() {
  const app = window.app;
  const nodes = [];
  const visit = (graph) => {
    for (const node of graph.nodes ?? graph._nodes) {
      nodes.push(node);
      if (node.subgraph) visit(node.subgraph);
    }
  };
  visit(app.rootGraph ?? app.graph);

  const invalid = (widget) => {
    const { type, value, options } = widget;
    if (type === "combo") {
      const values = typeof options?.values === "function" ? options.values(widget) : options?.values;
      const known = Array.isArray(values) ? values : Object.keys(values ?? {});
      return !known.includes(value);
    }
    if (type === "number") {
      return typeof value !== "number" || !(value >= (options?.min ?? -Infinity) && value <= (options?.max ?? Infinity));
    }
    return value === undefined;
  };
  const known = (node) => node.type in window.LiteGraph.registered_node_types || node.isVirtualNode || node.subgraph;
  const shown = (selector) => (
    [...document.querySelectorAll(selector)].filter((e) => e.getClientRects().length).map((e) => e.textContent));
  const { output: prompt } = await app.graphToPrompt();
  return {
    frontend: window.__COMFYUI_FRONTEND_VERSION__ ?? null,
    nodes: nodes.map((node) => ({ id: String(node.id), type: node.type, title: node.title })),
    links: nodes.flatMap((node) => node.inputs ?? []).filter((input) => input.link != null).length,
    missing: [...new Set(nodes.filter((node) => !known(node)).map((node) => node.type))],
    errored: nodes.filter((node) => node.has_errors).map((node) => String(node.id)),
    widgets: nodes.flatMap((node) => (node.widgets ?? []).filter(invalid).map(
      (widget) => ({ node: String(node.id), type: node.type, widget: widget.name, value: widget.value ?? null }),
    )),
    hidden: nodes.flatMap((node) => (node.widgets ?? []).filter((widget) => widget.hidden).map(
      (widget) => `${node.type}.${widget.name}`,
    )),
    curves: document.querySelectorAll("polyline").length,
    choices: shown(".sparse-guidance-choices li"),
    offered: window.offered ?? [],
    said: shown(".sparse-guidance-said"),
    templates: await window.comfyAPI.api.api.getWorkflowTemplates(),
    dialogs: [...document.querySelectorAll("[role=dialog], .p-dialog, .p-toast-message")].map((e) => e.innerText.trim()),
    prompt,
  };
}

/**
 * Runs in the page: an API-form workflow becomes a graph, laid out in columns, with fixed seeds.
 * A node's `_meta` may hold "size" and "pos" beside the usual "title"; the editor's own MarkdownNote and Note work too.
 */
async function convert({ workflow, name }) {
  const app = window.app;
  await app.loadApiJson(workflow, name);
  const graph = app.rootGraph ?? app.graph;
  const nodes = graph.nodes ?? graph._nodes;
  for (const node of nodes) {
    for (const widget of node.widgets ?? []) {
      if (widget.name === "control_after_generate") widget.value = "fixed";
    }
    const [width, height] = node.computeSize();
    const picture = /^(Save|Preview)Image/.test(node.type) ? 270 : 0;
    node.setSize(workflow[node.id]._meta?.size ?? [Math.max(Math.ceil(width) + 40, 230 + picture / 3), height + picture]);
  }
  graph.arrange();
  for (const node of nodes) {
    if (workflow[node.id]._meta?.pos) node.pos = workflow[node.id]._meta.pos;
  }
  return graph.serialize();
}

const open = new WeakMap();  // page -> its requests that have not ended

const EMPTY = [800, 500];  // a place on the canvas without nodes: they are put AWAY from it
const AWAY = 5000;

/** Runs in the page: a file is dropped in the middle of the canvas. */
async function drop({ data, name, type }) {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name, { type }));
  const place = { clientX: innerWidth / 2, clientY: innerHeight / 2, bubbles: true, cancelable: true };
  for (const kind of ["dragenter", "dragover", "drop"]) {
    window.app.canvas.canvas.dispatchEvent(new DragEvent(kind, { dataTransfer, ...place }));
  }
}

/** Adds the nodes of a "build" file by the search box, connects them, and does what else the file says. */
async function build(page, { nodes, links, values, complete, run, leave, reload, undo, enclose, promote, drop: dropped }) {
  await page.evaluate(() => window.app.graph.clear());
  const count = () => page.evaluate(() => window.app.graph._nodes.length);
  for (const [i, { search, type, pos }] of nodes.entries()) {
    if (!search) {
      await page.evaluate(([type, [x, y], away]) => {
        const node = window.LiteGraph.createNode(type);
        node.pos = [x + away, y];
        window.app.graph.add(node);
      }, [type, pos, AWAY]);
      continue;
    }
    for (let tries = 0; tries < 4 && (await count()) === i; tries++) {
      await page.mouse.move(...EMPTY);  // where the node will be
      await page.evaluate(() => window.app.extensionManager.command.execute("Workspace.SearchBox.Toggle"));
      const ready = await page.waitForFunction(() => document.activeElement?.tagName === "INPUT", null, { timeout: 8000 })
        .catch(() => null);
      if (!ready) continue;
      await page.keyboard.type(search, { delay: 20 });
      await page.waitForTimeout(1000 * (1 + tries));  // the search waits for the typing to end
      await page.keyboard.press("Enter");
      await page.waitForFunction((had) => window.app.graph._nodes.length > had, i, { timeout: 4000 })
        .catch(() => page.keyboard.press("Escape"));
    }
    const hangs = () => page.evaluate((place) => Boolean(window.app.graph._nodes[place]?.flags?.ghost), i);
    await page.waitForTimeout(500);
    for (let tries = 1; tries < 6 && (await hangs()); tries++) {  // some editors let a new node hang at the pointer
      await page.mouse.move(EMPTY[0] + tries, EMPTY[1]);
      await page.mouse.click(EMPTY[0] + tries, EMPTY[1]);
      await page.waitForTimeout(500);
    }
    const added = await page.evaluate(([place, [x, y], away]) => {
      const node = window.app.graph._nodes[place];
      if (node) node.pos = [x + away, y];
      return node?.type;
    }, [i, pos, AWAY]);
    if (added !== type) throw new Error(`searching for ${search} added ${added ?? "nothing"} (${await count()} nodes)`);
    await page.waitForTimeout(500);
  }
  await page.evaluate((links) => {
    const all = window.app.graph._nodes;
    for (const [from, output, to, input] of links) {
      const slot = (list, name) => list.findIndex((entry) => entry.name === name);
      all[from].connect(slot(all[from].outputs, output), all[to], slot(all[to].inputs, input));
    }
  }, links);
  await page.evaluate((values) => {
    for (const [place, name, value] of values) {
      window.app.graph._nodes[place].widgets.find((widget) => widget.name === name).value = value;
    }
  }, values ?? []);
  await page.evaluate(fit);
  await settled(page);
  if (enclose) {
    await page.evaluate(async ([places, promoted]) => {
      const { canvas, graph } = window.app;
      const { subgraph } = graph.convertToSubgraph(new Set(places.map((place) => graph._nodes[place])));
      if (!promoted) return canvas.setGraph(subgraph);
      const [inner] = subgraph.nodes;
      subgraph.addInput(promoted, "STRING").connect(inner.inputs.find(({ name }) => name === promoted), inner);
      await window.app.loadGraphData(graph.serialize());  // old editors draw the text in an opened file only
    }, [enclose, promote]);
    if (promote) await page.evaluate(fit);
    await settled(page);
  }
  if (dropped) await dropLink(page, dropped);
  if (run) return pressRun(page, { leave, reload, undo });
  if (!complete) return;
  const field = page.locator("textarea").filter({ visible: true }).first();
  await field.fill("");
  await field.pressSequentially(complete.typed, { delay: 40 });
  const choices = page.locator(".sparse-guidance-choices");
  if (complete.label) await choices.getByText(complete.label, { exact: true }).click();
  else await choices.waitFor();
}

/** Drags a link from a slot to an empty place of the canvas, notes what the editor offers there and chooses one. */
async function dropLink(page, [place, side, name, choice]) {
  const from = await page.evaluate(([place, side, name]) => {
    const { canvas, graph } = window.app, node = graph._nodes[place];
    const slot = node[side].findIndex((entry) => entry.name === name);
    const [x, y] = node.getConnectionPos(side === "inputs", slot);
    const { left, top } = canvas.canvas.getBoundingClientRect();
    return [(x + canvas.ds.offset[0]) * canvas.ds.scale + left, (y + canvas.ds.offset[1]) * canvas.ds.scale + top];
  }, [place, side, name]);
  await page.mouse.move(...from);
  await page.mouse.down();
  await page.mouse.move(EMPTY[0], 2 * EMPTY[1] - 150, { steps: 8 });  // below the nodes, which are in the middle
  await page.mouse.up();
  const entries = page.locator(".litecontextmenu .litemenu-entry");
  await entries.first().waitFor({ timeout: 10000 });
  const offered = await entries.allTextContents();
  await page.evaluate((offered) => { window.offered = offered; }, offered);
  if (offered.includes(choice)) await entries.getByText(choice, { exact: true }).click();
  await settled(page);
}

/**
 * Runs the graph and waits until the editor has heard that the run ended, or shows why there is none. With `leave` a copy
 * of the graph is opened beside it while it runs, with `reload` the page is loaded again, with `undo` a move of a node is
 * undone afterwards.
 */
async function pressRun(page, { leave, reload, undo }) {
  await page.evaluate(listen);
  const begun = undo && (await page.evaluate(noted));
  if (reload) await page.evaluate(occupy);
  await page.evaluate(async (leave) => {
    const queued = window.app.queuePrompt(0, 1);
    if (!leave) return;
    await queued;
    await window.app.loadGraphData(window.app.graph.serialize());
    if (window.runEnded) throw new Error("the run was over before the other graph was open");
  }, leave ?? false);
  if (reload) await loadAgain(page);
  else await page.waitForFunction(() => window.runEnded || document.querySelector("[role=dialog], .p-dialog, .p-toast-message"));
  await settled(page);
  if (!undo) return;
  const ran = await page.evaluate(noted);
  await page.evaluate(() => (window.app.graph._nodes[0].pos = [0, 0]));
  const moved = await page.evaluate(noted);
  await page.evaluate(() => window.app.extensionManager.workflow.activeWorkflow.changeTracker.undo());
  await settled(page);
  const undone = await page.evaluate(noted);
  if (String([ran, moved, undone].map(([undos, redos]) => [undos - begun[0], redos])) !== "0,0,1,0,0,1") {
    throw new Error(`undos and redos: ${JSON.stringify({ begun, ran, moved, undone })}`);
  }
}

/** Runs in the page: gives the host a run of somebody else's, of more steps than anybody waits for. */
async function occupy() {
  const { output: prompt } = await window.app.graphToPrompt();
  for (const { inputs } of Object.values(prompt)) if (inputs.steps) inputs.steps = 10000;
  await window.comfyAPI.api.api.fetchApi("/prompt", { method: "POST", body: JSON.stringify({ prompt }) });
}

/** Loads the page again while the host is occupied, and lets it go on to its end. */
async function loadAgain(page) {
  await page.evaluate(noted);
  await page.waitForFunction(() => {  // the editor stores the graph a little later
    const kept = [localStorage, sessionStorage].flatMap((storage) => Object.values(storage)).join();
    return window.app.graph._nodes.every(({ type }) => kept.includes(type));
  });
  await page.reload();
  await ready(page);
  await page.evaluate(() => window.comfyAPI.api.api.interrupt(null));
  while (await page.evaluate(isBusy)) await page.waitForTimeout(300);
}

/** Runs in the page: whether the host has something to do. */
async function isBusy() {
  const queue = await (await window.comfyAPI.api.api.fetchApi("/queue")).json();
  return queue.queue_running.length + queue.queue_pending.length > 0;
}

/** Runs in the page: notes that a run ended. */
function listen() {
  window.runEnded = false;
  for (const end of ["execution_success", "execution_error", "execution_interrupted"]) {
    window.comfyAPI.api.api.addEventListener(end, () => (window.runEnded = true), { once: true });
  }
}

/** Runs in the page: how many states of the graph the editor has for undo and redo, after it looked for a change. */
async function noted() {
  const { changeTracker } = window.app.extensionManager.workflow.activeWorkflow;
  (changeTracker.captureCanvasState ?? changeTracker.checkState).call(changeTracker);
  await new Promise((looked) => { setTimeout(looked, 200); });  // it looks once more, for what it makes part of this state
  return [changeTracker.undoQueue.length, changeTracker.redoQueue.length];
}

/** Runs in the page: show all of the graph. */
function fit() {
  const { canvas, graph } = window.app;
  const boxes = (graph.nodes ?? graph._nodes).map((node) => {
    node.updateArea(canvas.ctx);  // else a node has no place until it is drawn
    return [...node.getBounding()];
  });
  if (!boxes.length) return;
  const left = Math.min(...boxes.map((b) => b[0])), right = Math.max(...boxes.map((b) => b[0] + b[2]));
  const top = Math.min(...boxes.map((b) => b[1])), bottom = Math.max(...boxes.map((b) => b[1] + b[3]));
  const { clientWidth: width, clientHeight: height } = canvas.canvas;
  const scale = Math.min(1, (width - 160) / (right - left), (height - 200) / (bottom - top));
  canvas.ds.scale = scale;
  canvas.ds.offset[0] = width / scale / 2 - (left + right) / 2;
  canvas.ds.offset[1] = height / scale / 2 - (top + bottom) / 2;
  canvas.setDirty(true, true);
}

/** Runs in every page before its own scripts: notes when elements or texts of the page last changed. */
function watch() {
  window.changedAt = performance.now();
  const noted = () => (window.changedAt = performance.now());
  new MutationObserver(noted).observe(document, { childList: true, characterData: true, subtree: true });
}

/**
 * Waits until no request is open and nothing of the page has changed for `quiet` ms. A page that never rests is left
 * 2 s after its last request was answered, and after a minute at the latest.
 */
async function settled(page, quiet = 500) {
  const begun = Date.now();
  for (let answered = begun; Date.now() < Math.min(answered + 2000, begun + 60000); await page.waitForTimeout(50)) {
    const still = await page.evaluate(() => performance.now() - window.changedAt);
    if (open.get(page).size) answered = Date.now();
    if (Math.min(still, Date.now() - answered) >= quiet) return;
  }
}

/** Opens the editor in a profile of its own (it restores its last graph) and waits until it can load a workflow. */
async function openEditor(browser, job, messages) {
  const page = await browser.newPage({ viewport: { width: 1600, height: 1000 } });
  page.setDefaultTimeout(1000 * (job.seconds ?? 240));
  open.set(page, new Set());
  page.on("request", (request) => open.get(page).add(request));
  for (const end of ["requestfinished", "requestfailed"]) page.on(end, (request) => open.get(page).delete(request));
  await page.addInitScript(watch);
  page.on("pageerror", (error) => messages.push(String(error.stack ?? error)));
  page.on("console", (message) => {
    const source = message.location().url;
    const foreign = (source && !source.startsWith(job.url)) || /https:\/\/([a-z.]*comfy\.org|huggingface\.co)/.test(message.text());
    if (message.type() === "error" && !foreign) messages.push(`${message.text()} (${source})`);
  });
  await page.goto(job.url);
  await ready(page);
  // Of the complaints while starting, only those about custom nodes' scripts count: the editor has some of its own.
  messages.splice(0, Infinity, ...messages.filter((text) => /\/extensions\/(?!core\/)/.test(text)));
  return page;
}

/** Waits until the editor can load a workflow. */
async function ready(page) {
  await page.waitForFunction(() => window.app?.canvas && window.app.graph && window.LiteGraph
    && Object.keys(window.LiteGraph.registered_node_types).length > 100);
  await page.waitForFunction(() => {  // startup replaces the graph until this is true
    const { workflow, spinner } = window.app.extensionManager;
    return workflow.activeWorkflow && !spinner;
  });
  await settled(page);
}

async function main(job) {
  const browser = await chromium.launch({ executablePath: job.chromium ?? "/usr/bin/chromium", args: FLAGS });
  const messages = [];
  const reports = [];
  let page;
  try {
    await fetch(`${job.url}/settings`, { method: "POST", body: JSON.stringify({ "Comfy.TutorialCompleted": true, ...job.settings }) });
    for (const { path, screenshot } of job.workflows) {
      const last = reports.at(-1);
      if (!last || last.dialogs.length) {  // a dialog would hide the next workflow
        await page?.close();
        page = await openEditor(browser, job, messages);
      }
      const text = readFileSync(path, "utf8");
      const name = basename(path);
      let workflow;
      if (job.task === "convert") {
        workflow = await page.evaluate(convert, { workflow: JSON.parse(text), name });
      } else if (job.task === "build") {
        await build(page, JSON.parse(text));
      } else if (name.endsWith(".png")) {
        await page.evaluate(() => window.app.graph.clear());
        await page.evaluate(drop, { data: readFileSync(path).toString("base64"), name, type: "image/png" });
        await page.waitForFunction(() => window.app.graph._nodes.length > 0);
      } else {
        await page.evaluate(async ({ text, name }) => {
          await window.app.handleFile(new File([text], name, { type: "application/json" }));
        }, { text, name });
      }
      await page.evaluate(fit);
      await settled(page);
      const report = await page.evaluate(inspectGraph);
      if (screenshot) await page.screenshot({ path: screenshot });
      reports.push({ ...report, console: messages.splice(0), ...(workflow && { workflow }) });
    }
    return reports;
  } finally {
    await browser.close();
  }
}

try {
  console.log(JSON.stringify(await main(JSON.parse(process.argv[2]))));
} catch (error) {
  console.log(JSON.stringify({ failure: String(error?.stack ?? error) }));
  process.exitCode = 1;
}
