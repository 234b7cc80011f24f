// Whose message it is that the host sends of a run: the editor has several workflows open, whose nodes have the same ids, and
// hears of the runs of all of them, also of those that it queued before the page was loaded again.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const ENDS = ["execution_success", "execution_error", "execution_interrupted"];
const KEPT = "sparse_guidance.runs";  // in the session of the browser's tab, as is the name that the host knows it by

const runs = new Map();  // prompt id -> { workflow, classes } of a run that has not ended; a workflow from before is a path
const told = new Map();  // workflow -> what its nodes heard last, in order: kind and node -> [kind, detail, run]
const hearers = [];  // [kind, heard]
let settled = Promise.resolve();  // once every question to the host is answered, and every workflow loaded

const openWorkflow = () => app.extensionManager?.workflow?.activeWorkflow;
const isOpen = (workflow) => workflow === openWorkflow() || (workflow && workflow === openWorkflow()?.path);

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
// the nodes of the next workflow are there before it is the open one; those of an undo are made anew
watch(app, "loadGraphData", async (loaded) => {
  await loaded;
  for (const [workflow, said] of told) if (isOpen(workflow)) for (const each of said.values()) reach(...each);
});

/** The node that a message of a run is about, by a path where it is inside subgraphs; null unless it is of the workflow that
 * is open. */
function nodeOf(run, path) {
  if (!isOpen(run.workflow)) return null;
  let graph = app.rootGraph ?? app.graph, node = null;
  for (const id of String(path).split(":")) {
    node = graph?.getNodeById(id) ?? graph?.getNodeById(Number(id));
    graph = node?.subgraph;
  }
  return node?.comfyClass === run.classes[path] ? node : null;
}

const pathOf = (detail) => detail.display_node ?? detail.node ?? detail.node_id;

function reach(kind, detail, run) {
  const node = nodeOf(run, pathOf(detail));
  if (node) for (const [wanted, heard] of hearers) if (wanted === kind) heard(node, detail);
}

/** Hands a message on, and notes it for when its workflow is opened again. */
function tell(kind, detail) {
  const run = runs.get(detail.prompt_id);
  if (!run) return;
  if (!told.has(run.workflow)) told.set(run.workflow, new Map());
  const said = told.get(run.workflow), key = `${kind} ${pathOf(detail)}`;
  said.delete(key);  // the newest is the last
  said.set(key, [kind, detail, run]);
  reach(kind, detail, run);
}

/** Calls `heard(node, detail)` at every message of a kind that is about a node of the workflow that is open. */
export function hear(kind, heard) {
  if (!hearers.some(([known]) => known === kind)) {
    api.addEventListener(kind, async ({ detail }) => {
      await settled;
      tell(kind, detail);
    });
  }
  hearers.push([kind, heard]);
}

/** Calls `heard(node, output)` when a node of these classes has run. */
export function hearOutput(classes, heard) {
  hear("executed", (node, { output }) => {
    if (output && classes.includes(node.comfyClass)) heard(node, output);
  });
}

const asked = async (address) => (await api.fetchApi(address)).json();

/** Ends a run. What one from before gave back while no page was there to listen stands in the host's history. */
async function end(id) {
  const run = runs.get(id);
  if (run?.kept) {
    const { outputs = {}, meta } = (await asked(`/history/${id}`))[id] ?? {};
    for (const [node, output] of Object.entries(outputs)) {
      tell("executed", { prompt_id: id, node, display_node: meta?.[node]?.display_node, output });
    }
  }
  runs.delete(id);
}

/** The runs from before, of which some may have ended meanwhile. */
async function recall() {
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
  sessionStorage.removeItem(KEPT);
  if (!kept.length) return;
  for (const [id, run] of kept) runs.set(id, { ...run, kept: true });
  const { queue_running: running, queue_pending: waiting } = await asked("/queue");
  const going = new Set([...running, ...waiting].map(([, id]) => id));
  for (const [id] of kept) if (!going.has(id)) await end(id);
}

function keep() {
  const kept = [...runs].map(([id, { workflow, classes }]) => [id, { workflow: workflow?.path ?? workflow, classes }]);
  sessionStorage.setItem(KEPT, JSON.stringify(kept));
}

app.registerExtension({
  name: "sparseguidance.runs",
  setup() {
    for (const kind of ENDS) {
      api.addEventListener(kind, async ({ detail }) => {
        await settled;
        setTimeout(() => end(detail.prompt_id).catch((error) => console.warn(error)));  // behind those that hear of an end
      });
    }
    addEventListener("pagehide", keep);
    recall().catch((error) => console.warn(error));
  },
});
