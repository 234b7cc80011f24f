// Sparsity Scheduler: what it will do, drawn as soon as a widget changes, and only the widgets that count.
//
// The host answers both (nodes/editor.py), with the code that runs later. Without this script the node works the same and
// shows every widget.

import { app } from "../../scripts/app.js";
import { answered } from "./asking.js";
import { complete } from "./completion.js";
import { fold, foldAgain, grow, savedSize } from "./fold.js";
import { checkpointOf, scaleBehind, source, valueOf } from "./graph.js";
import { hearOutput } from "./runs.js";

const CLASS = "SparsityScheduler";
const PLOT = "plan";
const CURVE = "_curve";  // how the names of the sockets for drawn curves end
const LOOK_EVERY = 300;  // ms; a look is cheap, and sees links, undo and other nodes' widgets, which tell nobody
const HEIGHT = 190;
const WIDTH = 320;
const COLORS = { gamma_strong: "#4a9fe0", gamma_weak: "#e8833a", omega: "#3fae62" };
const WIDTHS = { gamma_weak: 5, gamma_strong: 2, omega: 2 };  // the wider one is drawn first: equal rates are both seen
const PANELS = { gamma_weak: [34, 106], gamma_strong: [34, 106], omega: [118, 166] };
const LEFT = 30, RIGHT = 312;
const LETTERS = 66;  // on a line

const open = new Set();

const svg = (name, attributes, text) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text != null) element.textContent = text;
  return element;
};

/** The picture of a plan, in the theme's colours. */
function drawn(plan, note) {
  const ink = "var(--input-text, #ddd)", line = "var(--border-color, #4e4e4e)";
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: "100%", height: "100%", "font-size": 9, fill: ink });
  const x = (progress) => LEFT + (RIGHT - LEFT) * progress;
  const share = { gamma_strong: (v) => v, gamma_weak: (v) => v, omega: (v) => (v - 1) / (plan.omega_top - 1) };
  for (const [top, bottom] of [PANELS.gamma_weak, PANELS.omega]) {
    const at = { x: x(plan.start), y: top, width: x(plan.end) - x(plan.start), height: bottom - top };
    picture.append(svg("rect", { ...at, fill: ink, opacity: 0.08 }));
    picture.append(svg("rect", { x: LEFT, y: top, width: RIGHT - LEFT, height: bottom - top, fill: "none", stroke: line }));
  }
  const ticks = [["1", 34], ["0.5", 70], ["0", 106], [String(plan.omega_top), 118], ["1", 166]];
  for (const [text, y] of ticks) picture.append(svg("text", { x: LEFT - 4, y: y + 3, "text-anchor": "end" }, text));
  for (const [name, width] of Object.entries(WIDTHS)) {
    const [top, bottom] = PANELS[name];
    const values = plan.curves[name];
    const points = values.map((value, i) => [x(i / (values.length - 1)), bottom - (bottom - top) * share[name](value)]);
    const path = points.map(([px, py]) => `${px.toFixed(1)},${py.toFixed(1)}`).join(" ");
    picture.append(svg("polyline", { points: path, fill: "none", stroke: COLORS[name], "stroke-width": width }));
  }
  let along = LEFT;
  picture.append(svg("text", { x: along, y: 11, "font-weight": "bold" }, plan.rule));
  along += 10 + plan.rule.length * 6;
  for (const name of ["gamma_strong", "gamma_weak", "omega"]) {
    picture.append(svg("rect", { x: along, y: 6, width: 12, height: 4, fill: COLORS[name] }));
    picture.append(svg("text", { x: along + 15, y: 11 }, name.replace("_", " ")));
    along += 25 + name.length * 5.4;
  }
  picture.append(svg("text", { x: LEFT, y: 24, opacity: 0.8 }, plan.words));
  const lines = broken(note);
  lines.forEach((line, i) => picture.append(svg("text", { x: LEFT, y: 187 - 5 * lines.length + 10 * i, opacity: 0.8 }, line)));
  return picture;
}

/** A sentence in place of the picture. */
function said(sentence) {
  const text = document.createElement("div");
  text.textContent = sentence;
  text.style.cssText = "padding: 12px; font-size: 12px; color: var(--input-text, #ddd); white-space: normal";
  return text;
}

/** What decides the plan: everything that is asked, true where only a run knows it, and how the plot should name a scale
 * from behind. */
function question(node) {
  const names = node.widgets.map(({ name }) => name).filter((name) => name !== PLOT);
  for (const { name, link } of node.inputs ?? []) if (link != null && name.endsWith(CURVE)) names.push(name);
  const values = Object.fromEntries(names.map((name) => [name, valueOf(node, name) ?? true]));
  const scale = scaleBehind(node), connected = source(node, "model") != null;
  return {
    asked: { preset: values.preset, values, model_name: checkpointOf(node), connected, scale: scale ? scale.value || true : 0 },
    scale,
    linked: (node.inputs ?? []).filter((input) => input.link != null).map((input) => input.name),
  };
}

/** What stands below the curves, in parts: what is linked and counts for nothing, when guidance is active, where omega comes from,
 * how many steps the model wants. */
function note({ scale, linked }, plan) {
  const parts = [];
  const idle = (linked ?? []).filter((name) => plan.used && !plan.used.includes(name));
  if (idle.length) parts.push(`not used: ${idle.join(", ")}`);
  if (plan.start > 0 || plan.end < 1) parts.push(`guided from ${plan.start} to ${plan.end}`);
  if (scale && plan.scaled) parts.push(`omega ${scale.value || "from a link"} is the ${scale.name} of ${scale.title}`);
  if (plan.steps) parts.push(`${plan.steps} steps recommended`);
  return parts.length ? parts : ["progress: noise to picture"];
}

/** Parts of a line, joined; in two lines where they are too many for one. */
function broken(parts) {
  const whole = parts.join(", ");
  if (whole.length <= LETTERS || parts.length < 2) return [whole];
  const fitting = parts.findIndex((_, i) => parts.slice(0, i + 1).join(", ").length > LETTERS);
  const first = Math.max(fitting, 1);
  return [`${parts.slice(0, first).join(", ")},`, parts.slice(first).join(", ")];
}

/** Asks for the plan if anything has changed; one question at a time. */
function look(node) {
  const state = node.sparsePlan;
  state.asking ??= ask(node, state).finally(() => { state.asking = null; });
  return state.asking;
}

async function ask(node, state) {
  const now = question(node);
  const key = JSON.stringify(now);
  if (key === state.key) return;
  const plan = await answered(state, "/sparse_guidance/plan", now.asked);
  if (!plan) return;
  state.key = key;
  state.settings = plan.settings ?? [];
  state.known = !plan.error;
  const elsewhere = plan.error && now.asked.connected && !now.asked.model_name && now.asked.preset === "from the model";
  show(node, elsewhere ? { ...plan, error: "The model's own plan is shown here after a run." } : plan, now);
}

/** The names of the settings that the connected model's file offers. */
async function settingsOf(node) {
  await look(node);
  return node.sparsePlan.settings;
}

function show(node, plan, now) {
  const state = node.sparsePlan;
  state.element.replaceChildren(plan.error ? said(plan.error) : drawn(plan, note(now, plan)));
  if (plan.used && fold(node, plan.used, [PLOT])) fit(node);
  node.setDirtyCanvas?.(true, true);
}

/** After folding. The size in a file counts once, before the user changes anything. */
function fit(node) {
  grow(node, node.sparsePlan.saved);
  node.sparsePlan.saved = null;
}

complete({
  comfyClass: CLASS, widget: "setting", choices: settingsOf, span: (text) => [0, text.length], all: true,
});

app.registerExtension({
  name: "sparseguidance.sparsity_scheduler",

  nodeCreated(node) {
    if (node.comfyClass !== CLASS || !node.addDOMWidget) return;
    const element = document.createElement("div");
    element.style.cssText = "width: 100%; height: 100%; overflow: hidden; background: var(--comfy-input-bg, #222); border-radius: 4px";
    const size = { getMinHeight: () => HEIGHT, getMaxHeight: () => 2 * HEIGHT };
    const widget = node.addDOMWidget(PLOT, "sparse_guidance_plan", element, { serialize: false, hideOnZoom: false, ...size });
    widget.serialize = false;
    node.sparsePlan = { element, key: null, asking: null, saved: null, settings: [], known: false };
    open.add(node);

    const configured = node.onConfigure, removed = node.onRemoved;
    node.onConfigure = function (...given) {
      this.sparsePlan.saved = savedSize(this, given[0]);
      if (foldAgain(this, [PLOT])) fit(this);
      return configured?.apply(this, given);
    };
    node.onRemoved = function (...given) {
      open.delete(this);
      return removed?.apply(this, given);
    };
  },

  setup() {
    hearOutput([CLASS], (node, { plan }) => {
      if (plan?.[0]) show(node, plan[0], { scale: null });
      if (node.sparsePlan.known) node.sparsePlan.key = null;  // a scale from behind is drawn again
    });
    setInterval(() => {
      if (!document.hidden) for (const node of open) if (node.graph) look(node).catch((error) => console.warn(error));
    }, LOOK_EVERY);
  },
});
