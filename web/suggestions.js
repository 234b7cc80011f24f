// Nodes that the editor offers when a link is dropped on the empty canvas: it lists the first few of each type, which are
// its own, and this adds ours behind them.

import { app } from "../../scripts/app.js";

const AFTER = {  // a link that comes from an output of this type
  MODEL: ["SparseKSampler", "SparseGuidance", "SparseGuidanceSimple", "TokenRoute"],
  CONDITIONING: ["SparseKSampler", "SparseGuider"],
  LATENT: ["SparseKSampler"],
  SPARSITY: ["SparseGuidance", "SparseKSampler", "SparseGuider", "SparseGuidanceSheet", "SparseGuidanceReport"],
};
const BEFORE = {  // a link that wants to end in an input of this type
  MODEL: ["SparseModelLoader", "SparseCheckpointLoader", "SparseGuidance", "TokenRoute"],
  CLIP: ["SparseCheckpointLoader", "SparseTextEncoder"],
  VAE: ["SparseModelLoader", "SparseCheckpointLoader", "SparseVAELoader"],
  CONDITIONING: ["SparseClassCondition"],
  LATENT: ["EmptySparseLatent", "SparseKSampler"],
  GUIDER: ["SparseGuider"],
  SPARSITY: ["SparsityScheduler"],
};

function offer(lists, ours) {
  for (const [type, names] of Object.entries(ours)) {
    lists[type] = [...new Set([...(lists[type] ?? []), ...names])];
  }
}

function offerAll() {
  offer(window.LiteGraph.slot_types_default_out, AFTER);
  offer(window.LiteGraph.slot_types_default_in, BEFORE);
}

app.registerExtension({
  name: "sparseguidance.suggestions",
  setup: offerAll,
  refreshComboInNodes: offerAll,  // the editor has just made its lists anew
});
