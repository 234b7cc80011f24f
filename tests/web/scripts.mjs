// Runs the editor's scripts in node, on stand-ins for the browser and the host: node scripts.mjs FOLDER, where the pack's
// scripts lie in FOLDER/extensions/pack. Prints what each case found as JSON.

import { pathToFileURL } from "node:url";

const found = {}, extensions = [], timers = [], listeners = {}, messages = {};
let now = 1e6, answer = null, asked = [], answerQueue = null;

class Element {
  style = {};
  value = "";
  children = [];
  written = [];
  replaceChildren(...children) { this.children = children; }
  append(...children) { this.children.push(...children); }
  addEventListener() {}
  setAttribute() {}
  dispatchEvent() {}
  getBoundingClientRect() { return { left: 0, bottom: 0 }; }
  setRangeText(text) { this.written.push(text); }
}

const session = new Map(), windowHears = {};
Object.assign(globalThis, {
  HTMLTextAreaElement: Element,
  sessionStorage: {
    getItem: (key) => session.get(key) ?? null,
    setItem: (key, value) => session.set(key, value),
    removeItem: (key) => session.delete(key),
  },
  requestAnimationFrame: (callback) => setTimeout(callback),
  addEventListener: (type, callback) => { windowHears[type] = callback; },
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
api.addEventListener = (kind, heard) => { (messages[kind] ??= []).push(heard); };
app.loadGraphData = async () => {};
api.queuePrompt = () => new Promise((resolve) => { answerQueue = resolve; });
api.fetchApi = async (address) => {
  asked.push(address);
  return { ok: answer !== null, json: async () => answer };
};
for (const name of ["token_route", "sparsity_scheduler", "labels", "said"]) {
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

const inner = { ...node, inputs: [...node.inputs, { name: "labels", link: 2 }], widgets: [] };
const inside = { ...graph, getLink: () => ({ target_id: 2, target_slot: 1 }), getNodeById: () => inner, inputs: [{ linkIds: [2] }] };
const around = { subgraph: inside, inputs: [{ widget: { name: "labels" } }], widgets: node.widgets };
app.graph = { _nodes: [around] };
found.promoted = await entered(["robot"]);
around.widgets = [{ name: "others" }, { name: "labels" }];  // in Nodes 2.0 the field is not the widget's own
field.labels = [{ textContent: "labels" }];
field.closest = () => ({ dataset: { nodeId: "3" } });
app.graph.getNodeById = () => around;
found.promotedInNodes2 = await entered(["robot"]);

const { labelAt } = await import(new URL("extensions/pack/labels.js", folder));
found.spans = [["fox\n(ro:0.5)\ncat", 6], ["fox\uff0cro\u3001cat", 5], ["fox, red apple ,\ncat", 7], [",x", 0]].map(([text, cursor]) => (
  text.slice(...labelAt(text, cursor))
));

const { savedSize } = await import(new URL("extensions/pack/fold.js", folder));
const whole = { computeSize: () => [250, 750.4] };
found.sizes = [savedSize(whole, { size: [360, 375] }), savedSize(whole, { size: [360, 750] }), savedSize(whole, {})];

const box = { comfyClass: "SparseKSampler", title: "Sparse KSampler", inputs: [{ name: "sparsity", type: "SPARSITY" }] };
box.widgets = [{ name: "omega", value: 2 }];

/** A scheduler of these widgets in front of a sampler, which was added, as high as all of them, and then got a file's size. */
function scheduler(values, size) {
  const behind = { getLink: () => ({ target_id: 3, target_slot: 0 }), getNodeById: () => box };
  const made = { comfyClass: "SparsityScheduler", graph: behind, size: [360, 750], inputs: [], outputs: [{ links: [1] }] };
  made.setSize = (to) => (made.size = to);
  made.widgets = Object.entries(values).map(([name, value]) => ({ name, value }));
  made.computeSize = () => [250, 350 + 100 * made.widgets.filter(({ hidden }) => !hidden).length];
  made.addDOMWidget = (name, kind, element) => made.widgets[made.widgets.push({ name, element, value: "" }) - 1];
  for (const extension of extensions) extension.nodeCreated?.(made);
  made.onConfigure({ size });
  return made;
}

const written = (element) => element.children.flatMap((child) => [...(child.textContent ? [child.textContent] : []), ...written(child)]);
answer = { used: ["preset"], rule: "SG", words: "", start: 0, end: 0.6, omega_top: 2, scaled: true, steps: 20 };
answer.curves = { gamma_strong: [0, 0], gamma_weak: [1, 1], omega: [2, 2] };
const values = { preset: "from the model", rule: "SG", setting: "" };
const seen = scheduler(values, [360, 500]);
found.unfolded = seen.widgets.filter(({ hidden }) => hidden).length;
for (const look of timers) look();
await settled();
found.folded = [seen.widgets.filter(({ hidden }) => hidden).length, seen.size[1]];
found.steps = written(seen.sparsePlan.element).slice(-2);
const pasted = scheduler(values, [360, 500]), other = scheduler({ ...values, rule: "CFG" }, [360, 500]);
found.again = [pasted.widgets.filter(({ hidden }) => hidden).length, pasted.size[1]];
found.other = other.widgets.filter(({ hidden }) => hidden).length;
for (const each of [seen, pasted, other]) each.onRemoved();

const { checkpointOf, scaleBehind, source, valueOf } = await import(new URL("extensions/pack/graph.js", folder));

/** A graph of nodes by their ids, and of links [id, from, output, to, input]; -10 and -20 are a subgraph's own ends. */
function graphOf(nodes, links, ends = {}) {
  const made = { _nodes: Object.values(nodes), ...ends };
  made.getNodeById = (id) => nodes[id] ?? null;
  made.getLink = (wanted) => {
    const link = links.find(([id]) => id === wanted);
    return link && { origin_id: link[1], origin_slot: link[2], target_id: link[3], target_slot: link[4] };
  };
  made.rootGraph = made;
  for (const [id, node] of Object.entries(nodes)) Object.assign(node, { id, graph: made, comfyClass: node.type });
  return made;
}

/** A loader outside, a scheduler and its guidance in a subgraph, KSampler outside; `values` are promoted widgets. */
function nested(values = []) {
  const inputs = [{ name: "model", link: 1 }, { name: "preset", link: 2 }];
  const scheduler = { type: "SparsityScheduler", inputs, widgets: [{ name: "preset", value: "custom" }], outputs: [{ links: [3] }] };
  const guidance = { type: "SparseGuidance", inputs: [{ name: "sparsity", link: 3, type: "SPARSITY" }], outputs: [{ type: "MODEL", links: [4] }] };
  const inside = graphOf(
    { 5: scheduler, 6: guidance }, [[1, -10, 0, 5, 0], [2, -10, 1, 5, 1], [3, 5, 0, 6, 0], [4, 6, 0, "-20", 0]],
    { inputs: [{ linkIds: [1] }, { linkIds: [2] }], outputs: [{ linkIds: [4] }] },
  );
  const around = {
    type: "subgraph", subgraph: inside, inputs: [{ name: "model", link: 7 }, { name: "preset", link: null }],
    widgets: [{ name: "preset", value: "SG_FLOPS" }], outputs: [{ type: "MODEL", links: [8] }],
  };
  const loader = { type: "SparseModelLoader", widgets: [{ name: "model_name", value: "a.safetensors" }] };
  const sampler = {
    type: "KSampler", title: "KSampler", inputs: [{ name: "model", link: 8, type: "MODEL" }, { name: "cfg", link: 9 }],
    widgets: [{ name: "cfg", value: 2 }],
  };
  const primitive = { type: "PrimitiveFloat", widgets: [{ name: "value", value: 3 }] };
  const outside = { 1: loader, 2: around, 3: sampler, 4: primitive };
  inside.rootGraph = graphOf(outside, [[7, 1, 0, 2, 0], [8, 2, 0, 3, 0], [9, 4, 0, 3, 1]]);
  return { scheduler, guidance, around, loader, sampler, primitive, root: inside.rootGraph };
}

const scene = nested();
found.outside = [checkpointOf(scene.scheduler), valueOf(scene.scheduler, "preset"), scaleBehind(scene.scheduler).value];
scene.primitive.type = "RandomNumber";
found.later = [Number.isNaN(scaleBehind(scene.scheduler).value), valueOf(scene.sampler, "cfg") ?? null];
scene.guidance.mode = 4;
found.bypassed = scaleBehind(scene.scheduler);
const again = { ...scene.around };  // the same subgraph once more, first alike
scene.root._nodes.push(again);
found.alike = [checkpointOf(scene.scheduler), valueOf(scene.scheduler, "preset")];
Object.assign(again, { inputs: [{ name: "model", link: null }, scene.around.inputs[1]], widgets: [{ name: "preset", value: "HPSv3" }] });
found.twice = [checkpointOf(scene.scheduler), source(scene.scheduler, "model") !== null, valueOf(scene.scheduler, "preset") ?? null];
scene.root._nodes.pop();
scene.around.inputs[0].link = null;
found.open = source(scene.scheduler, "model");

/** The texts of costs that come under the node 3 of the open workflow, after messages of the host. */
async function said(...heard) {
  const texts = [];
  const element = { set textContent(text) { texts.push(text); } };
  const sampler = { comfyClass: "KSampler", widgets: [{ name: "sparse_guidance_said", element }], size: [1, 1] };
  Object.assign(sampler, { computeSize: () => [1, 1], setSize() {} });
  app.graph = { getNodeById: (id) => (String(id) === "3" ? sampler : null) };
  for (const each of heard) {
    if (typeof each === "function") await each();
    else for (const listener of messages[each[0]]) listener({ detail: each[1] });
  }
  await settled();
  return texts;
}

const [first, second] = ["first.json", "second.json"].map((path) => ({ path }));
const told = (prompt_id) => ["sparse_guidance.cost", { prompt_id, node: "3", text: prompt_id }];
const prompts = (class_type) => ({ output: { 3: { class_type, inputs: {} } } });
app.extensionManager = { workflow: { activeWorkflow: first } };
api.queuePrompt(0, prompts("KSampler"));
const early = said(told("early"));
answerQueue({ prompt_id: "early" });
api.queuePrompt(0, prompts("VAEDecode"));
answerQueue({ prompt_id: "before the graph was cleared" });
found.heard = [await early, await said(told("early"), told("of another page"), told("before the graph was cleared"))];
app.extensionManager.workflow.activeWorkflow = second;
found.elsewhere = await said(told("early"));
app.extensionManager.workflow.activeWorkflow = first;
found.back = await said(told("early"), ["execution_success", { prompt_id: "early" }]);
found.ended = await said(told("early"));

api.queuePrompt(0, prompts("KSampler"));
answerQueue({ prompt_id: "opened again" });
app.extensionManager.workflow.activeWorkflow = second;
found.reopened = [await said(told("opened again"))];
app.extensionManager.workflow.activeWorkflow = first;
found.reopened.push(await said(["execution_success", { prompt_id: "opened again" }], () => app.loadGraphData()));

for (const prompt_id of ["waits", "is over", "was cleared"]) {
  api.queuePrompt(0, prompts("SparseModelLoader"));
  answerQueue({ prompt_id });
}
await settled();
windowHears.pagehide();  // and the page is loaded again
const executed = (prompt_id, text) => ({ prompt_id, node: "3", output: { text: [text] } });
api.fetchApi = async (address) => ({ json: async () => ({
  "/queue": { queue_running: [], queue_pending: [[0, "waits"]] },
  "/history/is over": { "is over": { outputs: { 3: executed("is over", "said before").output } } },
  "/history/waits": { waits: { outputs: { 3: executed("waits", "said while it was loaded").output } } },
}[address] ?? {}) });
for (const kind of Object.keys(messages)) delete messages[kind];
extensions.length = 0;
const after = [];
app.graph = { getNodeById: () => ({ comfyClass: "SparseModelLoader" }) };
const { hearOutput } = await import(new URL("extensions/pack/runs.js?again", folder));
hearOutput(["SparseModelLoader"], (node, { text }) => after.push(...text));
app.extensionManager.workflow.activeWorkflow = undefined;  // which the editor opens later
for (const extension of extensions) extension.setup();
await settled();
app.extensionManager.workflow.activeWorkflow = { path: "first.json" };
await app.loadGraphData();
await settled();
for (const listener of messages.executed) listener({ detail: executed("waits", "said live") });
await settled();
for (const listener of messages.execution_success) listener({ detail: { prompt_id: "waits" } });
await settled();
for (const listener of messages.executed) listener({ detail: executed("was cleared", "never") });
await settled();
found.reloaded = after;

console.log(JSON.stringify(found));
