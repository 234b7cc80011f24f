// Only the widgets of a node that count, in both of the editor's frontends.

/** A widget that the editor folds away although it is used and says something. */
function isSetAside(widget) {
  const advanced = widget.advanced ?? widget.options?.advanced;
  return advanced && !widget.hidden && !["", "exact"].includes(widget.value);
}

const MOST = 200;
const counted = new Map();  // a class and the values of its widgets -> the names that the host said count for them

const held = ({ comfyClass, widgets }) =>
  JSON.stringify([comfyClass, widgets.filter(({ serialize }) => serialize !== false).map(({ value }) => value)]);

/** What `fold` did to a node of these values before, at once: what is pasted or brought back by undo is never drawn with all
 * of its widgets, a size that the editor would note. Tells whether anything changed. */
export function foldAgain(node, always) {
  const used = counted.get(held(node));
  return Boolean(used) && fold(node, used, always);
}

/** Hides the widgets that decide nothing, but for those that are `always` shown. A linked one stays, so that its link can be
 * seen. Tells whether anything changed. */
export function fold(node, used, always = []) {
  if (counted.size >= MOST) counted.clear();
  counted.set(held(node), used);
  const linked = new Set(node.inputs?.filter((input) => input.link != null).map((input) => input.widget?.name));
  let changed = false;
  for (const widget of node.widgets) {
    if (always.includes(widget.name)) continue;
    const hidden = !used.includes(widget.name) && !linked.has(widget.name);
    if (Boolean(widget.hidden) === hidden) continue;
    changed = true;
    widget.hidden = hidden;
    if (hidden) [widget.sparseSize, widget.computeSize] = [widget.computeSize, () => [0, -4]];  // for editors that leave a gap
    else if (widget.sparseSize) widget.computeSize = widget.sparseSize;
    else delete widget.computeSize;
    if (widget.options) widget.options.hidden = hidden;
  }
  if (node.widgets.some(isSetAside)) node.showAdvanced = true;  // what decides something is seen
  if (changed) node.widgets.push(node.widgets.pop());  // Nodes 2.0 looks again only when the list changes
  return changed;
}

/** The [width, height] of a node in a file, or null. A height that shows every widget is nobody's choice: the editor notes
 * it for its undo while it opens a file, before any is hidden. */
export function savedSize(node, file) {
  if (!file?.size) return null;
  const [width, height] = file.size;
  return [width, Math.round(height) === Math.round(node.computeSize()[1]) ? 0 : height];
}

/** Makes a node as large as its widgets need; `saved` is its [width, height] in a file, which it keeps where that fits. */
export function grow(node, saved) {
  const needed = node.computeSize();
  const [width, height] = saved ?? [node.size[0], 0];
  node.setSize([Math.max(width, needed[0]), Math.max(height, needed[1])]);
}
