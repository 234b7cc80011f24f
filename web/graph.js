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

/** The widgets that replace a schedule's omega: the cfg of stock samplers behind Sparse Guidance, the omega of Sparse
 * KSampler. Of several the largest, and how many they are. */
export function scaleBehind(node) {
  const found = scalesBehind(node).filter(({ value }) => value > 0);
  if (!found.length) return null;
  const largest = found.reduce((a, b) => (b.value > a.value ? b : a));
  return found.length === 1 ? largest : { ...largest, title: `one of ${found.length} samplers` };
}

function scalesBehind(node, hops = 32) {
  return targets(node).flatMap(({ node: target, input }) => {
    const widget = widgetOf(target, target.comfyClass === "SparseKSampler" ? "omega" : "cfg");
    if (widget && target.comfyClass !== "SparseGuidance" && (input === "model" || widget.name === "omega")) {
      return [{ value: widget.value, name: widget.name, title: target.title }];
    }
    const passesOn = target.outputs?.[0]?.type === "MODEL" || (target.outputs?.length === 1 && target.inputs?.length === 1);
    return hops > 0 && passesOn ? scalesBehind(target, hops - 1) : [];
  });
}
