// Templates: this pack's in the order of their numbers. The host lists files as its file system does, on Linux in any order.

import { api } from "../../scripts/api.js";

const [, pack] = /\/extensions\/([^/]+)\//.exec(import.meta.url) ?? [];
const listed = api.getWorkflowTemplates;

if (pack && listed) {
  api.getWorkflowTemplates = async function (...given) {
    const templates = await listed.apply(this, given);
    templates[decodeURIComponent(pack)]?.sort();
    return templates;
  };
}
