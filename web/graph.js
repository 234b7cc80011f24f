// What stands before and behind a node in the graph, in both of the editor's frontends.

const LOADERS = { SparseModelLoader: "model_name", SparseCheckpointLoader: "ckpt_name" };

export const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);

const linkOf = (node, id) => (id == null ? null : node.graph?.getLink?.(id) ?? node.graph?.links?.[id] ?? null);

/** The node that feeds an input, or null. */
export function source(node, inputName) {
  const input = node.inputs?.find((entry) => entry.name === inputName);
  const link = linkOf(node, input?.link);
  return (link && node.graph.getNodeById(link.origin_id)) ?? null;
}

/** The nodes that an output feeds, each with the name of the input that it feeds. */
export function targets(node, output = 0) {
  return (node.outputs?.[output]?.links ?? []).flatMap((id) => {
    const link = linkOf(node, id);
    const target = link && node.graph.getNodeById(link.target_id);
    return target ? [{ node: target, input: target.inputs?.[link.target_slot]?.name }] : [];
  });
}

/** The checkpoint whose MODEL reaches an input, through LoRAs and patches; null if no loader of this pack is found. */
export function checkpointOf(node, inputName = "model") {
  for (let hops = 0; node && hops < 32; hops++) {
    node = source(node, inputName);
    const named = LOADERS[node?.comfyClass];
    if (named) return widgetOf(node, named)?.value ?? null;
    inputName = node?.inputs?.find((entry) => entry.type === "MODEL" || (node.inputs.length === 1))?.name;
    if (!inputName) return null;
  }
  return null;
}

/** The widget that replaces a schedule's omega: a stock sampler's cfg behind Sparse Guidance, or Sparse KSampler's omega. */
export function scaleBehind(node, hops = 32) {
  for (const { node: target, input } of targets(node)) {
    const widget = widgetOf(target, target.comfyClass === "SparseKSampler" ? "omega" : "cfg");
    const counts = widget && target.comfyClass !== "SparseGuidance" && (input === "model" || widget.name === "omega");
    if (counts) return widget.value > 0 ? { value: widget.value, name: widget.name, title: target.title } : null;
    const passesOn = target.outputs?.[0]?.type === "MODEL" || (target.outputs?.length === 1 && target.inputs?.length === 1);
    const found = hops > 0 && passesOn ? scaleBehind(target, hops - 1) : null;
    if (found) return found;
  }
  return null;
}
