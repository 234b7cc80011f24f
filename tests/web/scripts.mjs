// Runs the editor's scripts in node, on stand-ins for the browser and the host: node scripts.mjs FOLDER, where the pack's
// scripts lie in FOLDER/extensions/pack. Prints what each case found as JSON.

import { pathToFileURL } from "node:url";

const found = {}, extensions = [], timers = [], listeners = {};
let now = 1e6, answer = null, asked = [];

class Element {
  style = {};
  value = "";
  children = [];
  written = [];
  replaceChildren(...children) { this.children = children; }
  append() {}
  addEventListener() {}
  setAttribute() {}
  dispatchEvent() {}
  getBoundingClientRect() { return { left: 0, bottom: 0 }; }
  setRangeText(text) { this.written.push(text); }
}

Object.assign(globalThis, {
  HTMLTextAreaElement: Element,
  setInterval: (callback) => timers.push(callback),
  document: {
    body: new Element(), hidden: false, activeElement: null,
    createElement: () => new Element(), createElementNS: () => new Element(),
    addEventListener: (type, callback) => { listeners[type] = callback; },
  },
});
Date.now = () => now;

const folder = pathToFileURL(`${process.argv[2]}/`);
const { app } = await import(new URL("scripts/app.js", folder));
const { api } = await import(new URL("scripts/api.js", folder));
app.registerExtension = (extension) => extensions.push(extension);
api.addEventListener = () => {};
api.fetchApi = async (address) => {
  asked.push(address);
  return { ok: answer !== null, json: async () => answer };
};
for (const name of ["token_route", "sparsity_scheduler", "labels"]) {
  await import(new URL(`extensions/pack/${name}.js`, folder));
}
for (const extension of extensions) extension.setup?.();

const settled = () => new Promise((resolve) => { setTimeout(resolve, 5); });

/** How often a new node asks the host in six seconds. */
async function asks(comfyClass) {
  asked = [];
  const node = { comfyClass, widgets: [], graph: {}, size: [1, 1], addDOMWidget: () => ({ element: new Element() }) };
  for (const extension of extensions) extension.nodeCreated?.(node);
  for (let tick = 0; tick < 20; tick++) {
    for (const look of timers) look();
    await settled();
    now += 300;
  }
  node.onRemoved();
  return asked.length;
}

answer = null;
found.refused = { TokenRoute: await asks("TokenRoute"), SparsityScheduler: await asks("SparsityScheduler") };
answer = { error: "nothing", text: "nothing" };
found.answered = { TokenRoute: await asks("TokenRoute"), SparsityScheduler: await asks("SparsityScheduler") };

const field = new Element();
field.value = "ro";
field.selectionStart = 2;
field.closest = () => null;
document.activeElement = field;
const loader = { comfyClass: "SparseModelLoader", widgets: [{ name: "model_name", value: "a.safetensors" }] };
const graph = { getLink: () => ({ origin_id: 1 }), getNodeById: () => loader };
const node = { comfyClass: "SparseClassCondition", inputs: [{ name: "model", link: 1 }], graph };
node.widgets = [{ name: "labels", element: field }];
app.graph = { _nodes: [node] };

/** What Enter writes into the field while the host knows these labels. */
async function entered(labels, event = {}) {
  answer = labels;
  field.written = [];
  await listeners.input({ target: field, type: "input" });
  await settled();
  listeners.keydown({ key: "Enter", target: field, preventDefault() {}, stopPropagation() {}, ...event });
  return field.written;
}

found.none = await entered([]);
found.written = await entered(["rocket"]);
now += 60000;
found.anew = await entered(["robot"]);
found.composing = await entered(["robot"], { isComposing: true });

const { labelAt } = await import(new URL("extensions/pack/labels.js", folder));
found.spans = [["fox\n(ro:0.5)\ncat", 6], ["fox, red apple ,\ncat", 7], [",x", 0]].map(([text, cursor]) => (
  text.slice(...labelAt(text, cursor))
));

console.log(JSON.stringify(found));
