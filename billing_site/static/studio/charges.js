/** The charges of a version, by meter: terms for all usage, grids of prices by dimension values, and separate terms for some usage. */

import { bind, copyOf, onEdit, place, say } from "./fields.js";
import { grids, isGridPrice, openGrid } from "./grids.js";
import { priceControls } from "./prices.js";
import { showLimits, showThresholds } from "./rows.js";

// Charges that are shown with all their terms even though a grid could hold them.
const apart = new WeakSet();
// By charge and dimension: how its terms were said to match, where the document alone would not tell (an empty value).
const matchings = new WeakMap();
// Which folds of which objects are open.
const opened = new WeakMap();

/** Show all charges of the editor's document. `editor`: state, document, edited(), reshaped(path). */
export function showCharges(root, editor) {
  const charges = (editor.document.charges ??= []);
  const codes = new Set(charges.filter((charge) => charge.kind !== "licensed").map((charge) => charge.meter));
  const licences = charges.filter((charge) => charge.kind === "licensed");
  root.replaceChildren(
    ...[...codes].map((code) => meterSection(code, editor)),
    ...licences.map((charge) => licenceSection(charge, editor)),
  );
  offerMeters(editor, codes);
}

/** Add a charge for all usage of a meter; return its place. */
export function addMeter(editor, code) {
  editor.document.charges.push({ kind: "usage", meter: code, included: "0", price: { model: "per_unit", unit_amount: null } });
  return `${pathOf(editor, editor.document.charges.at(-1))}.included`;
}

/** Add a licence; return its place. */
export function addLicence(editor) {
  editor.document.charges.push({ kind: "licensed", code: "", unit_amount: null, included: "0" });
  return `${pathOf(editor, editor.document.charges.at(-1))}.code`;
}

function offerMeters(editor, charged) {
  const select = document.getElementById("new-meter");
  const free = editor.state.meters.filter((meter) => !charged.has(meter.code));
  select.replaceChildren(...free.map((meter) => new Option(`${meter.name} (${meter.code})`, meter.code)));
  select.closest("label").hidden = document.getElementById("add-meter").hidden = !free.length;
}

function pathOf(editor, charge) {
  return `charges.${editor.document.charges.indexOf(charge)}`;
}

function remove(editor, charge) {
  editor.document.charges.splice(editor.document.charges.indexOf(charge), 1);
}

function meterOf(editor, code) {
  return editor.state.meters.find((one) => one.code === code)
    ?? { code, name: code ?? "?", one: "unit", many: "units", dimensions: [], isAdditive: true };
}

function meterSection(code, editor) {
  const meter = meterOf(editor, code);
  const section = copyOf("meter");
  section.querySelector("h2").textContent = `Usage: ${meter.name}`;
  const charges = editor.document.charges.filter((charge) => charge.meter === code && charge.kind !== "licensed");
  const inGrids = charges.filter((charge) => isGridPrice(charge) && !apart.has(charge));
  const cards = charges.filter((charge) => !inGrids.includes(charge));
  const whole = cards.filter((charge) => !dimensionsOf(charge).length);
  const parts = cards.filter((charge) => dimensionsOf(charge).length || apart.has(charge));
  section.querySelector(".cards").append(
    ...whole.filter((charge) => !apart.has(charge)).map((charge) => card(charge, meter, editor)),
    ...grids(meter, inGrids, editor),
    ...parts.map((charge) => card(charge, meter, editor)),
  );
  offerMore(section, meter, whole.length > 0, editor);
  return section;
}

function offerMore(section, meter, hasWhole, editor) {
  const act = (name) => section.querySelector(`[data-act=${name}]`);
  act("whole").hidden = hasWhole;
  act("whole").addEventListener("click", () => editor.reshaped(addMeter(editor, meter.code)));
  section.querySelector("[data-for-dimensions]").hidden = !meter.dimensions.length;
  const names = section.querySelector("[data-part=names]");
  const pairs = meter.dimensions.flatMap((one, index) => meter.dimensions.slice(index + 1).map((other) => [one, other]));
  for (const each of [...pairs, ...meter.dimensions.map((one) => [one])]) {
    names.add(new Option(each.join(" and "), JSON.stringify(each)));
  }
  act("grid").addEventListener("click", () => editor.reshaped(openGrid(meter, JSON.parse(names.value))));
  act("part").addEventListener("click", () => {
    const charge = {
      kind: "usage", meter: meter.code, included: null,
      dimensions: { [meter.dimensions[0]]: "" }, price: { model: "per_unit", unit_amount: null },
    };
    apart.add(charge);
    matchings.set(charge, { [meter.dimensions[0]]: "value" });
    editor.document.charges.push(charge);
    editor.reshaped(`${pathOf(editor, charge)}.dimensions.${meter.dimensions[0]}`);
  });
}

function dimensionsOf(charge) {
  return Object.entries(charge.dimensions ?? {});
}

function card(charge, meter, editor) {
  const root = copyOf("charge");
  const path = pathOf(editor, charge);
  place(root, path);
  const isPart = dimensionsOf(charge).length > 0 || apart.has(charge);
  const title = () => {
    const named = dimensionsOf(charge).map(([name, value]) => (value ? `${name} ${value}` : `no ${name}`)).join(", ");
    root.querySelector("h3").textContent = isPart ? `Only ${named || "some usage"}` : "All usage";
  };
  title();
  const dimensions = root.querySelector("[data-dimensions]");
  if (isPart) dimensions.append(...meter.dimensions.map((name) => dimensionRow(name, charge, path, editor, title)));
  else dimensions.remove();
  if (isPart) root.querySelector(".included .help").textContent = "Empty: shares the allowance for all usage of the meter. A number, also 0: an allowance of its own.";
  for (const own of root.querySelectorAll("[data-own]")) bind(own, charge, path, editor.edited);
  const said = { one: meter.one, many: meter.many };
  root.querySelector("[data-price]").append(priceControls(charge, { ...editor.context(), path, said, fold: keepFold }));
  lists(root, charge, path, editor);
  say(root, said);
  keepFold(root.querySelector("details[data-fold=limits]"), charge);
  root.querySelector(":scope > [data-act=remove]").addEventListener("click", () => {
    remove(editor, charge);
    editor.reshaped("charges");
  });
  return root;
}

function lists(root, charge, path, editor) {
  const shown = { limits: showLimits, thresholds: showThresholds };
  for (const [name, show] of Object.entries(shown)) {
    const list = root.querySelector(`[data-list=${name}]`);
    place(list, `${path}.${name}`);
    show(list, charge[name] ?? [], { path: `${path}.${name}`, edited: editor.edited, reshaped: editor.reshaped });
  }
  const add = (act, name, made) => root.querySelector(`[data-act=${act}]`).addEventListener("click", () => {
    (charge[name] ??= []).push(made);
    editor.reshaped(`${path}.${name}.${charge[name].length - 1}`);
  });
  add("limit", "limits", { quantity: null, window: "PT1H" });
  add("threshold", "thresholds", { percent: 80 });
}

function dimensionRow(name, charge, path, editor, title) {
  const row = copyOf("dimension");
  place(row, `${path}.dimensions.${name}`);
  row.querySelector(".label").textContent = name;
  const matching = row.querySelector("[data-part=matching]");
  const value = row.querySelector("[data-part=value]");
  const current = charge.dimensions?.[name];
  matching.value = matchings.get(charge)?.[name] ?? (current === undefined ? "any" : current ? "value" : "none");
  value.value = current ?? "";
  const write = () => {
    charge.dimensions ??= {};
    if (matching.value === "any") delete charge.dimensions[name];
    else charge.dimensions[name] = matching.value === "value" ? value.value : "";
    row.querySelector("[data-of=value]").hidden = matching.value !== "value";
    matchings.set(charge, { ...matchings.get(charge), [name]: matching.value });
    apart.add(charge);
    title();
    editor.edited();
  };
  onEdit(matching, write);
  onEdit(value, write);
  row.querySelector("[data-of=value]").hidden = matching.value !== "value";
  return row;
}

/** Keep a fold open, or closed, while its charge is shown anew. */
function keepFold(details, owner) {
  const name = details.dataset.fold;
  const open = opened.get(owner) ?? new Set();
  opened.set(owner, open);
  details.open = open.has(name);
  details.addEventListener("toggle", () => (details.open ? open.add(name) : open.delete(name)));
}

function licenceSection(charge, editor) {
  const root = copyOf("licence");
  const path = pathOf(editor, charge);
  place(root, path);
  bind(root, charge, path, editor.edited);
  say(root, { currency: editor.document.currency });
  root.querySelector("[data-act=remove]").addEventListener("click", () => {
    remove(editor, charge);
    editor.reshaped("charges");
  });
  return root;
}
