// Whose message it is that the host sends of a run: the editor has several workflows open, whose nodes have the same ids, and
// hears of the runs of all of them.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const ENDS = ["execution_success", "execution_error", "execution_interrupted"];

const runs = new Map();  // prompt id -> { workflow, classes } of a run that this page has queued
let settled = Promise.resolve();  // once every question to the host is answered, and every workflow loaded

const openWorkflow = () => app.extensionManager?.workflow?.activeWorkflow;

/** Calls `begun(promise, ...arguments)` whenever a method of the editor's begins. */
function watch(object, method, begun) {
  const original = object[method];
  if (original) object[method] = function (...given) {
    const promise = original.apply(this, given);
    settled = Promise.allSettled([settled, begun(promise, ...given)]);
    return promise;
  };
}

// the host may speak of a run before it has answered that there is one
watch(api, "queuePrompt", async (answer, number, asked) => {
  const classes = Object.fromEntries(Object.entries(asked?.output ?? {}).map(([id, node]) => [id, node.class_type]));
  const run = { workflow: openWorkflow(), classes };
  runs.set((await answer).prompt_id, run);
});
// the nodes of the next workflow are there before it is the open one
watch(app, "loadGraphData", (loaded) => loaded);

/** The node that a run names, by a path where it is inside subgraphs; null unless it is of the workflow that is open. */
function nodeOf(run, path) {
  if (!run || run.workflow !== openWorkflow()) return null;
  let graph = app.rootGraph ?? app.graph, node = null;
  for (const id of String(path).split(":")) {
    node = graph?.getNodeById(id) ?? graph?.getNodeById(Number(id));
    graph = node?.subgraph;
  }
  return node?.comfyClass === run.classes[path] ? node : null;
}

/** Calls `heard(node, detail)` at every message of a kind that is about a node of the workflow that is open. */
export function hear(kind, heard) {
  api.addEventListener(kind, async ({ detail }) => {
    await settled;
    const node = nodeOf(runs.get(detail.prompt_id), detail.display_node ?? detail.node ?? detail.node_id);
    if (node) heard(node, detail);
  });
}

/** Calls `heard(node, output)` when a node of these classes has run. */
export function hearOutput(classes, heard) {
  hear("executed", (node, { output }) => {
    if (output && classes.includes(node.comfyClass)) heard(node, output);
  });
}

app.registerExtension({
  name: "sparseguidance.runs",
  setup() {
    for (const end of ENDS) {
      api.addEventListener(end, async ({ detail }) => {
        await settled;
        setTimeout(() => runs.delete(detail.prompt_id));  // behind those that hear of an end
      });
    }
  },
});
