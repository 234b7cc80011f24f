// Sparse Class Condition: the labels of the connected model are suggested while one is typed.
//
// One list serves every such text field, of both frontends: fields are told by the node they are drawn on. Without this
// script labels are typed as before.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { checkpointOf, widgetOf } from "./graph.js";

const CLASS = "SparseClassCondition";
const SHOWN = 12;
const known = new Map();  // checkpoint -> labels

async function labelsOf(node) {
  const name = checkpointOf(node);
  if (!name) return [];
  if (!known.has(name)) {
    const response = await api.fetchApi(`/sparse_guidance/labels?model_name=${encodeURIComponent(name)}`);
    if (!response.ok) return [];
    known.set(name, await response.json());
  }
  return known.get(name);
}

/** The node that a text field belongs to: by the widget that holds it, or by the box it is drawn in. */
function nodeOf(field) {
  const box = field.closest?.("[data-node-id]");
  const graph = app.canvas?.graph ?? app.graph;
  const nodes = box ? [graph.getNodeById(box.dataset.nodeId) ?? graph.getNodeById(Number(box.dataset.nodeId))] : graph._nodes;
  return nodes.find((node) => {
    if (node?.comfyClass !== CLASS) return false;
    const widget = widgetOf(node, "labels");
    return box || widget?.element === field || widget?.inputEl === field;
  }) ?? null;
}

/** [start, end] of the label at the cursor: between commas, without a bracket in front or a weight behind. */
export function labelAt(text, cursor) {
  const start = text.lastIndexOf(",", cursor - 1) + 1;
  const comma = text.indexOf(",", cursor);
  const entry = text.slice(start, comma < 0 ? text.length : comma);
  const [, before] = /^([\s(]*)/.exec(entry);
  const [label] = /^[^:)]*/.exec(entry.slice(before.length));
  return [start + before.length, start + before.length + label.trimEnd().length];
}

/** Labels that begin with what was typed, then those with a word that does, then those that hold it. */
export function suggestions(labels, typed) {
  const wanted = typed.trim().toLowerCase();
  if (!wanted) return [];
  const rank = (label) => {
    const text = label.toLowerCase();
    if (text === wanted) return 4;
    if (text.startsWith(wanted)) return 0;
    if (text.split(/[\s-]+/).some((word) => word.startsWith(wanted))) return 1;
    return text.includes(wanted) ? 2 : 3;
  };
  const ranked = labels.map((label) => [rank(label), label]);
  if (ranked.some(([place]) => place === 4)) return [];  // it is a label already
  return ranked.filter(([place]) => place < 3).sort(([a], [b]) => a - b).slice(0, SHOWN).map(([, label]) => label);
}

const list = document.createElement("ul");
list.className = "sparse-guidance-labels";
list.style.cssText = "position: fixed; z-index: 10000; display: none; margin: 0; padding: 4px 0; list-style: none; overflow-y: auto;"
  + "max-height: 240px; min-width: 140px; font: 13px sans-serif; color: var(--input-text, #ddd); border-radius: 4px;"
  + "background: var(--comfy-menu-bg, #333); border: 1px solid var(--border-color, #4e4e4e)";
let current = null;  // { field, choices, chosen }

function close() {
  list.style.display = "none";
  current = null;
}

function pick(label) {
  const { field } = current;
  const [start, end] = labelAt(field.value, field.selectionStart);
  field.setRangeText(label, start, end, "end");
  close();
  field.dispatchEvent(new Event("input", { bubbles: true }));  // how both frontends learn of a text
}

function render() {
  const { field, choices, chosen } = current;
  list.replaceChildren(...choices.map((label, i) => {
    const entry = document.createElement("li");
    entry.textContent = label;
    entry.style.cssText = `padding: 3px 12px; cursor: pointer; ${i === chosen ? "background: var(--border-color, #555)" : ""}`;
    entry.addEventListener("pointerdown", (event) => {
      event.preventDefault();  // the field keeps the focus
      event.stopPropagation();
      pick(label);
    });
    return entry;
  }));
  const box = field.getBoundingClientRect();
  list.style.left = `${box.left}px`;
  list.style.top = `${box.bottom + 2}px`;
  list.style.display = "block";
}

async function suggest(event) {
  const field = event.target;
  if (!(field instanceof HTMLTextAreaElement)) return;
  const node = nodeOf(field);
  if (!node) return;
  const labels = await labelsOf(node);
  const [start, end] = labelAt(field.value, field.selectionStart);
  const choices = document.activeElement === field ? suggestions(labels, field.value.slice(start, end)) : [];
  if (!choices.length) return close();
  current = { field, choices, chosen: 0 };
  render();
}

function keys(event) {
  if (!current || event.target !== current.field) return;
  const { choices } = current;
  if (event.key === "Escape") close();
  else if (event.key === "Enter" || event.key === "Tab") pick(choices[current.chosen]);
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const step = event.key === "ArrowDown" ? 1 : choices.length - 1;
    current.chosen = (current.chosen + step) % choices.length;
    render();
  } else return;
  event.preventDefault();
  event.stopPropagation();
}

app.registerExtension({
  name: "sparseguidance.labels",
  setup() {
    document.body.append(list);
    document.addEventListener("input", (event) => suggest(event).catch((error) => console.warn(error)));
    document.addEventListener("keydown", keys, true);
    document.addEventListener("focusout", (event) => { if (event.target === current?.field) close(); });
  },
});
