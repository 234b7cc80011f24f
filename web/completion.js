// What a text field may hold, offered while one types: the labels of a model, the settings that its file names.
//
// One list serves every such field, of both frontends: fields are told by the node they are drawn on. Without this script
// they are typed as any text.

import { app } from "../../scripts/app.js";
import { promoted, widgetOf } from "./graph.js";

const SHOWN = 12;
const fields = [];

/** Offers choices in the text field `widget` of nodes of a class: `choices(node)` gives them, perhaps later, and
 * `span(text, cursor)` says which part of the text is one, as [start, end]. With `all` an empty field offers every one. */
export function complete({ comfyClass, widget, choices, span, all = false }) {
  fields.push({ comfyClass, widget, choices, span, all });
}

/** The widget of a node that a field shows. Nodes 2.0 draws a field of its own, with the widget's name above it. */
function shownIn(field, node) {
  const [label] = field.labels ?? [];
  return node.widgets?.find(({ element }) => element === field)
    ?? node.widgets?.find((widget) => label && (widget.label || widget.name) === label.textContent.trim());
}

/** { node, kind } of a text field: by the widget that holds it, perhaps around a subgraph, or by the box it is drawn in; null
 * for all others. */
function ownerOf(field) {
  const box = field.closest?.("[data-node-id]");
  const graph = app.canvas?.graph ?? app.graph;
  const nodes = box ? [graph.getNodeById(box.dataset.nodeId) ?? graph.getNodeById(Number(box.dataset.nodeId))] : graph._nodes;
  for (const node of nodes) {
    const outer = node?.subgraph && shownIn(field, node);
    for (const { node: inner, input } of outer ? promoted(node, outer) : []) {
      const kind = fields.find(({ comfyClass, widget }) => comfyClass === inner.comfyClass && widget === input);
      if (kind) return { node: inner, kind };
    }
    const kind = fields.find(({ comfyClass }) => comfyClass === node?.comfyClass);
    const widget = kind && widgetOf(node, kind.widget);
    if (kind && (box || widget?.element === field || widget?.inputEl === field)) return { node, kind };
  }
  return null;
}

/** What was typed, if it is a choice that others hold too, those that begin with it, those with a word that does, those
 * that hold it. None if nothing but the choice itself is left. */
export function suggestions(choices, typed, all = false) {
  const wanted = typed.trim().toLowerCase();
  if (!wanted) return all ? choices.slice(0, SHOWN) : [];
  const rank = (choice) => {
    const text = choice.toLowerCase();
    if (text === wanted) return 0;  // in front, so that Enter keeps it
    if (text.startsWith(wanted)) return 1;
    if (text.split(/[\s-]+/).some((word) => word.startsWith(wanted))) return 2;
    return text.includes(wanted) ? 3 : 4;
  };
  const ranked = choices.map((choice) => [rank(choice), choice]).filter(([place]) => place < 4).sort(([a], [b]) => a - b);
  return ranked.every(([place]) => place === 0) ? [] : ranked.slice(0, SHOWN).map(([, choice]) => choice);
}

const list = document.createElement("ul");
list.className = "sparse-guidance-choices";
list.style.cssText = "position: fixed; z-index: 10000; display: none; margin: 0; padding: 4px 0; list-style: none; overflow-y: auto;"
  + "max-height: 240px; min-width: 140px; font: 13px sans-serif; color: var(--input-text, #ddd); border-radius: 4px;"
  + "background: var(--comfy-menu-bg, #333); border: 1px solid var(--border-color, #4e4e4e)";
let current = null;  // { field, kind, choices, chosen }
let picking = false;  // a choice is being written into the field: it asks for no further one

function close() {
  list.style.display = "none";
  current = null;
}

function pick(choice) {
  const { field, kind } = current;
  const [start, end] = kind.span(field.value, field.selectionStart);
  field.setRangeText(choice, start, end, "end");
  close();
  picking = true;
  field.dispatchEvent(new Event("input", { bubbles: true }));  // how both frontends learn of a text
  picking = false;
}

function render() {
  const { field, choices, chosen } = current;
  list.replaceChildren(...choices.map((choice, i) => {
    const entry = document.createElement("li");
    entry.textContent = choice;
    entry.style.cssText = `padding: 3px 12px; cursor: pointer; ${i === chosen ? "background: var(--border-color, #555)" : ""}`;
    entry.addEventListener("pointerdown", (event) => {
      event.preventDefault();  // the field keeps the focus
      event.stopPropagation();
      pick(choice);
    });
    return entry;
  }));
  const box = field.getBoundingClientRect();
  list.style.left = `${box.left}px`;
  list.style.top = `${box.bottom + 2}px`;
  list.style.display = "block";
}

async function suggest({ target: field, type }) {
  if (picking || !(field instanceof HTMLTextAreaElement)) return;
  const { node, kind } = ownerOf(field) ?? {};
  if (!kind || (type === "focusin" && !kind.all)) return;
  const known = await kind.choices(node);
  const [start, end] = kind.span(field.value, field.selectionStart);
  const choices = document.activeElement === field ? suggestions(known, field.value.slice(start, end), kind.all) : [];
  if (!choices.length) return close();
  current = { field, kind, choices, chosen: 0 };
  render();
}

function keys(event) {
  if (!current || event.target !== current.field || event.isComposing) return;  // Enter ends a word of an input method
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
  name: "sparseguidance.completion",
  setup() {
    document.body.append(list);
    for (const type of ["input", "focusin"]) {
      document.addEventListener(type, (event) => suggest(event).catch((error) => console.warn(error)));
    }
    document.addEventListener("keydown", keys, true);
    document.addEventListener("focusout", (event) => { if (event.target === current?.field) close(); });
  },
});
