// A text under a node: what it said of itself when it ran (the editor draws that for nodes of its own only), and what a
// guided run cost, under whichever node sampled it.

import { app } from "../../scripts/app.js";
import { grow } from "./fold.js";
import { hear, hearOutput } from "./runs.js";

export const SAID = "sparse_guidance_said";
const TABLES = ["SparseGuidanceReport"];  // whose lines stand below each other
const SPEAKERS = ["SparseModelLoader", "SparseCheckpointLoader", "SparseClassCondition", "SparseGuidanceMatch", ...TABLES];
const LINE = 15, MOST_LINES = 8, MOST_ROWS = 20;
const PADDING = 32;  // with the margin that the classic editor leaves around an element

/** A text is no change of the graph: in a file, and for the editor's undo, the node is as high as before. */
function leaveOut(node, widget) {
  const serialized = node.onSerialize;
  node.onSerialize = function (file) {
    file.size = [file.size[0], file.size[1] - widget.grown];
    return serialized?.call(this, file);
  };
}

/** Writes a text under a node, in place of the one before. */
export function say(node, text) {
  const table = TABLES.includes(node.comfyClass);
  let widget = node.widgets?.find(({ name }) => name === SAID);
  if (!widget) {
    const element = document.createElement("div");
    element.className = "sparse-guidance-said";
    element.style.cssText = "box-sizing: border-box; width: 100%; height: 100%; padding: 4px 8px; overflow: auto; user-select: text;"
      + `font: 11px/${LINE}px ${table ? "monospace" : "sans-serif"}; white-space: ${table ? "pre" : "pre-wrap"};`
      + "color: var(--input-text, #ddd); background: var(--comfy-input-bg, #222); border-radius: 4px";
    const height = () => PADDING + LINE * widget.lines;
    const options = { serialize: false, hideOnZoom: false, getMinHeight: height, getMaxHeight: height };
    widget = node.addDOMWidget?.(SAID, "sparse_guidance_said", element, options);
    if (!widget) return;
    Object.assign(widget, { serialize: false, grown: 0 });
    leaveOut(node, widget);
  }
  if (widget.element.textContent === text) return;
  widget.element.textContent = text;
  const across = Math.max(Math.floor((node.size[0] - 40) / 5.6), 20);  // letters
  const written = text.split("\n");
  const lines = table ? written.length + 1 : written.reduce((sum, line) => sum + Math.max(Math.ceil(line.length / across), 1), 0);
  widget.lines = Math.min(lines, table ? MOST_ROWS : MOST_LINES);  // a table's last one is for its scroll bar
  const plain = node.size[1] - widget.grown;
  grow(node, [...node.size]);
  const measure = () => { widget.grown = node.size[1] - plain; };
  measure();
  requestAnimationFrame(() => requestAnimationFrame(measure));  // Nodes 2.0 finds a height of its own
  node.setDirtyCanvas?.(true, true);
}

/** Writes what a node gave back as text, if it gave any. */
export function sayOutput(node, { text }) {
  if (text) say(node, [text].flat().join("\n"));
}

app.registerExtension({
  name: "sparseguidance.said",

  setup() {
    hearOutput(SPEAKERS, sayOutput);
    hear("sparse_guidance.cost", (node, { text }) => say(node, text));
    hear("execution_error", (node, { exception_message }) => {  // some editors hide the sentence behind a button
      if (SPEAKERS.includes(node.comfyClass)) say(node, exception_message.trim());
    });
  },
});
