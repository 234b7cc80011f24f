// Token Route: one way to give a route at a time, and in words what it does, before a run and after it.
//
// The host answers (nodes/editor.py). Without this script the node works the same and shows every widget.

import { app } from "../../scripts/app.js";
import { answered } from "./asking.js";
import { fold, foldAgain, grow, savedSize } from "./fold.js";
import { valueOf } from "./graph.js";
import { hearOutput } from "./runs.js";
import { SAID, say, sayOutput } from "./said.js";

const CLASS = "TokenRoute";
const WIDGETS = ["route", "start_layer", "end_layer", "ratio", "json"];
const LOOK_EVERY = 300;  // ms; a look is cheap, and sees undo, links and loaded files, which tell nobody

const open = new Set();

async function look(node) {
  const state = node.sparseRoute;
  const values = Object.fromEntries(WIDGETS.map((name) => [name, valueOf(node, name) ?? true]));
  const key = JSON.stringify([values, node.inputs?.map((input) => input.link != null)]);
  if (state.asking || key === state.key) return;
  state.asking = true;
  try {
    const answer = await answered(state, "/sparse_guidance/route", values);
    if (!answer) return;
    const { used, text } = answer;
    state.key = key;
    say(node, text);
    if (used && fold(node, used, [SAID])) grow(node, state.saved);
    state.saved = null;  // a file's size counts once, before the user changes anything
  } finally {
    state.asking = false;
  }
}

app.registerExtension({
  name: "sparseguidance.token_route",

  nodeCreated(node) {
    if (node.comfyClass !== CLASS || !node.addDOMWidget) return;
    node.sparseRoute = { key: null, asking: false, saved: null };
    open.add(node);
    const configured = node.onConfigure, removed = node.onRemoved;
    node.onConfigure = function (...given) {
      this.sparseRoute.saved = savedSize(this, given[0]);
      if (foldAgain(this, [SAID])) grow(this, this.sparseRoute.saved);
      return configured?.apply(this, given);
    };
    node.onRemoved = function (...given) {
      open.delete(this);
      return removed?.apply(this, given);
    };
  },

  setup() {
    hearOutput([CLASS], sayOutput);  // of the model that came
    setInterval(() => {
      if (!document.hidden) for (const node of open) if (node.graph) look(node).catch((error) => console.warn(error));
    }, LOOK_EVERY);
  },
});
