// Questions to the host that are asked again and again until something changes: after one that failed there is a pause.

import { api } from "../../scripts/api.js";

const PAUSE = 5000;  // ms

/** What the host answers to `asked`, or null: it did not, or it did not a moment ago. `state` is the asker's own. */
export async function answered(state, address, asked) {
  if (Date.now() < (state.notBefore ?? 0)) return null;
  state.notBefore = Date.now() + PAUSE;
  const response = await api.fetchApi(address, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(asked),
  });
  if (!response.ok) return null;
  state.notBefore = 0;
  return response.json();
}
