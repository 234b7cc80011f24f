// Sparse Class Condition: the labels of the connected model are suggested while one is typed.

import { api } from "../../scripts/api.js";
import { complete } from "./completion.js";
import { checkpointOf } from "./graph.js";

const FRESH = 10000;  // ms: while a label is typed; a file may be replaced
const known = new Map();  // checkpoint -> { labels, until }

async function labelsOf(node) {
  const name = checkpointOf(node);
  if (!name) return [];
  if (!(Date.now() < known.get(name)?.until)) {
    const response = await api.fetchApi(`/sparse_guidance/labels?model_name=${encodeURIComponent(name)}`);
    if (!response.ok) return [];
    const labels = await response.json();
    known.set(name, { labels, until: labels.length ? Date.now() + FRESH : 0 });
  }
  return known.get(name).labels;
}

/** [start, end] of the label at the cursor: between commas or line breaks, without a bracket in front or a weight behind. */
export function labelAt(text, cursor) {
  const typed = text.slice(0, cursor);
  const start = Math.max(...[...",\n\uff0c\u3001"].map((mark) => typed.lastIndexOf(mark))) + 1;
  const [entry] = /^[^,\n\uff0c\u3001]*/.exec(text.slice(start));
  const [, before] = /^([\s(]*)/.exec(entry);
  const [label] = /^[^:)]*/.exec(entry.slice(before.length));
  return [start + before.length, start + before.length + label.trimEnd().length];
}

complete({ comfyClass: "SparseClassCondition", widget: "labels", choices: labelsOf, span: labelAt });
