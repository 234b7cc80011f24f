// What stands before and behind a node in the graph, through the borders of subgraphs, in both of the editor's frontends.

const LOADERS = { SparseModelLoader: "model_name", SparseCheckpointLoader: "ckpt_name" };
const INPUTS = -10, OUTPUTS = -20;  // the editor's ids of a subgraph's own ends, seen from inside
const MUTED = 2, BYPASSED = 4;
const HOPS = 32;
const UNKNOWN = {};  // a node of which nothing is known

export const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);

const inputOf = (node, name) => node.inputs?.find((entry) => entry.name === name);
const linkOf = (graph, id) => (id == null ? null : graph?.getLink?.(id) ?? graph?.links?.[id] ?? null);

/** The nodes whose inside a graph is; a subgraph may be used several times. */
function holders(graph) {
  const found = [], seen = new Set();
  const visit = (outer) => {
    if (seen.has(outer)) return;
    seen.add(outer);
    for (const node of outer?._nodes ?? []) {
      if (node.subgraph === graph) found.push(node);
      else if (node.subgraph) visit(node.subgraph);
    }
  };
  visit(graph.rootGraph ?? graph);
  return found;
}

/** What an input has: the { node } that a link comes from, or else the { widget } that holds its value. */
const before = (node, name) => origin(node.graph, inputOf(node, name), widgetOf(node, name));

function origin(graph, input, widget, hops = HOPS) {
  const link = linkOf(graph, input?.link);
  if (!link) return { widget };
  if (!hops) return { node: UNKNOWN };
  if (Number(link.origin_id) === INPUTS) {
    const [first, ...others] = holders(graph).map((around) => {
      const outer = around.inputs?.[link.origin_slot];
      return origin(around.graph, outer, outer && widgetOf(around, outer.widget?.name ?? outer.name), hops - 1);
    });
    return first && others.every((other) => isSame(first, other)) ? first : { node: UNKNOWN };
  }
  const from = graph.getNodeById(link.origin_id);
  if (!from?.subgraph) return { node: from ?? UNKNOWN };
  return origin(from.subgraph, { link: from.subgraph.outputs?.[link.origin_slot]?.linkIds?.[0] }, undefined, hops - 1);
}

const isSame = (one, other) => one.node === other.node && one.widget?.value === other.widget?.value;

/** The node that feeds an input, or null. */
export const source = (node, inputName) => before(node, inputName).node ?? null;

/** The value of a widget, or of what is linked in its place; undefined where only a run knows it. */
export function valueOf(node, name) {
  const { node: from, widget } = before(node, name);
  if (!from) return widget?.value;
  if (from.type === "CurveEditor") return widgetOf(from, "curve")?.value;
  return /^Primitive/.test(from.type) ? valueOf(from, "value") : undefined;
}

/** The nodes that an output feeds, each with the name of the input that it feeds. */
export const targets = (node, output = 0) => (node.outputs?.[output]?.links ?? []).flatMap((id) => behind(node.graph, id));

function behind(graph, id, hops = HOPS) {
  const link = linkOf(graph, id);
  if (!link || !hops) return [];
  if (Number(link.target_id) === OUTPUTS) {
    return holders(graph).flatMap((around) =>
      (around.outputs?.[link.target_slot]?.links ?? []).flatMap((next) => behind(around.graph, next, hops - 1)));
  }
  const target = graph.getNodeById(link.target_id);
  if (target?.subgraph) {
    const inside = target.subgraph.inputs?.[link.target_slot]?.linkIds ?? [];
    return inside.flatMap((next) => behind(target.subgraph, next, hops - 1));
  }
  return target ? [{ node: target, input: target.inputs?.[link.target_slot]?.name }] : [];
}

/** What a widget of a subgraph's node stands for: nodes inside, each with the name of the input. */
export function promoted(node, widget) {
  const slot = node.inputs?.findIndex((input) => input.widget?.name === widget.name) ?? -1;
  return (node.subgraph.inputs?.[slot]?.linkIds ?? []).flatMap((id) => behind(node.subgraph, id));
}

/** The checkpoint whose MODEL reaches an input, through LoRAs and patches; null if no loader of this pack is found. */
export function checkpointOf(node, inputName = "model") {
  for (let hops = 0; node && hops < HOPS; hops++) {
    node = source(node, inputName);
    const named = LOADERS[node?.comfyClass];
    if (named) return valueOf(node, named) ?? null;
    inputName = node?.inputs?.find((entry) => entry.type === "MODEL" || (node.inputs.length === 1))?.name;
    if (!inputName) return null;
  }
  return null;
}

/** The widgets that replace a schedule's omega: the cfg of stock samplers behind Sparse Guidance, the omega of Sparse
 * KSampler. Of several the largest, and how many they are; a value of NaN is known in a run only. */
export function scaleBehind(node) {
  const found = scalesBehind(node).filter(({ value }) => !(value <= 0));
  if (!found.length) return null;
  const largest = found.reduce((a, b) => (b.value > a.value || Number.isNaN(b.value) ? b : a));
  return found.length === 1 ? largest : { ...largest, title: `one of ${found.length} samplers` };
}

function scalesBehind(node, hops = HOPS) {
  return targets(node).flatMap(({ node: target, input }) => {
    if (target.mode === MUTED) return [];
    const { type } = inputOf(target, input) ?? {}, passed = target.outputs?.[0]?.type;
    if (target.mode !== BYPASSED) {
      const name = target.comfyClass === "SparseKSampler" ? "omega" : "cfg";
      if (widgetOf(target, name) && target.comfyClass !== "SparseGuidance" && (input === "model" || name === "omega")) {
        return [{ value: Number(valueOf(target, name)), name, title: target.title }];
      }
    } else if (passed !== type) return [];
    const passesOn = passed === "MODEL" || (target.outputs?.length === 1 && target.inputs?.length === 1);
    return hops > 0 && passesOn ? scalesBehind(target, hops - 1) : [];
  });
}
