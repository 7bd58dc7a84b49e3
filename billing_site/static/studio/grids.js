/** Prices per unit by one or two dimensions as a table: each filled cell is a charge of its own that shares the meter's allowance. */

import { copyOf, groupedNumber, onEdit, place, plainNumber } from "./fields.js";

// Rows and columns that were added and have no price yet, by meter and dimensions.
const added = new Map();

/** Whether a charge says nothing but a price per unit for values of one or two dimensions. */
export function isGridPrice(charge) {
  const count = Object.keys(charge.dimensions ?? {}).length;
  const price = charge.price ?? {};
  const isPlainPrice = price.model === "per_unit" && Object.keys(price).every((name) => ["model", "unit_amount"].includes(name) || price[name] == null);
  const isDefault = charge.included == null && charge.trial_included == null && charge.overage_quantity_max == null
    && (charge.at_limit ?? "allow") === "allow" && ["0", 0, null, undefined].includes(charge.rollover_max)
    && [1, null, undefined].includes(charge.rollover_periods) && !charge.limits?.length && !charge.thresholds?.length;
  return (count === 1 || count === 2) && isPlainPrice && isDefault;
}

/** Begin a grid of these dimensions of a meter; return the place where its first value is added. */
export function openGrid(meter, names) {
  extra(meter, names);
  return `${keyOf(meter, names)}.0`;
}

/** Return the grids of a meter: those that its charges make up, and those that were begun. */
export function grids(meter, charges, editor) {
  const sets = new Map([...added.values()].filter((one) => one.meter === meter.code).map((one) => [one.key, one.names]));
  for (const charge of charges) {
    const names = namesOf(meter, charge);
    sets.set(keyOf(meter, names), names);
  }
  return [...sets].map(([key, names]) => {
    const inIt = charges.filter((charge) => keyOf(meter, namesOf(meter, charge)) === key);
    return grid(meter, names, inIt, editor);
  });
}

function namesOf(meter, charge) {
  const names = Object.keys(charge.dimensions);
  const position = (name) => (meter.dimensions.includes(name) ? meter.dimensions.indexOf(name) : meter.dimensions.length);
  return names.sort((one, other) => position(one) - position(other));
}

function keyOf(meter, names) {
  return `grid.${JSON.stringify([meter.code, ...names])}`;
}

function extra(meter, names) {
  const key = keyOf(meter, names);
  if (!added.has(key)) added.set(key, { key, meter: meter.code, names, values: names.map(() => new Set()) });
  return added.get(key);
}

function grid(meter, names, charges, editor) {
  const root = copyOf("grid");
  const more = extra(meter, names);
  charges.forEach((charge) => names.forEach((name, side) => more.values[side].add(charge.dimensions[name])));
  const [rows, columns] = [more.values[0], more.values[1] ?? new Set([null])];
  root.querySelector("h3").textContent = `Price by ${names.join(" and ")}, ${editor.document.currency} per ${meter.one}`;
  root.querySelector("thead").append(headRow(names, columns, meter, charges, editor));
  root.querySelector("tbody").append(...[...rows].map((row) => bodyRow(row, columns, { meter, names, charges, editor })));
  root.querySelector("table").hidden = !rows.size || !columns.size;
  names.forEach((name, side) => root.querySelector(".adding").append(adder(name, side, more, editor)));
  return root;
}

function headRow(names, columns, meter, charges, editor) {
  const row = document.createElement("tr");
  row.append(heading("col", names[0]));
  for (const column of columns) {
    const cell = heading("col", column === null ? "price" : shown(names[1], column));
    if (column !== null) cell.append(" ", remover(shown(names[1], column), names[1], column, { meter, names, charges, editor }));
    row.append(cell);
  }
  row.append(document.createElement("td"));
  return row;
}

function bodyRow(value, columns, context) {
  const { names } = context;
  const row = document.createElement("tr");
  row.append(heading("row", shown(names[0], value)));
  for (const column of columns) row.append(cellFor(value, column, context));
  const end = document.createElement("td");
  end.append(remover(shown(names[0], value), names[0], value, context));
  row.append(end);
  return row;
}

function cellFor(row, column, { meter, names, charges, editor }) {
  const dimensions = { [names[0]]: row, ...(column === null ? {} : { [names[1]]: column }) };
  const cell = document.createElement("td");
  const input = document.createElement("input");
  Object.assign(input, { type: "text", autocomplete: "off", inputMode: "decimal" });
  input.dataset.kind = "number";
  input.setAttribute("aria-label", `Price for ${names.map((name) => shown(name, dimensions[name])).join(", ")}`);
  let charge = charges.find((one) => names.every((name) => one.dimensions[name] === dimensions[name]));
  const locate = () => charge && place(cell, `charges.${editor.document.charges.indexOf(charge)}`);
  input.value = groupedNumber(charge?.price.unit_amount);
  locate();
  onEdit(input, (typed) => {
    const amount = plainNumber(typed) || null;
    if (charge) charge.price.unit_amount = amount;
    else if (amount) {
      charge = { kind: "usage", meter: meter.code, included: null, dimensions, price: { model: "per_unit", unit_amount: amount } };
      editor.document.charges.push(charge);
      locate();
    }
    editor.edited();
  });
  // Only when the field is left: what is emptied to be typed anew is no removal. Nothing is shown anew, so that the keyboard stays where it goes.
  input.addEventListener("change", () => {
    if (!charge || charge.price.unit_amount) return;
    const index = editor.document.charges.indexOf(charge);
    editor.document.charges.splice(index, 1);
    charge = undefined;
    delete cell.dataset.path;
    moveUp(editor.form, index);
    editor.edited();
  });
  cell.append(input);
  return cell;
}

/** Renumber the places of the charges behind one that is gone. */
function moveUp(root, index) {
  for (const element of root.querySelectorAll('[data-path^="charges."]')) {
    const [, number, ...rest] = element.dataset.path.split(".");
    if (Number(number) > index) place(element, ["charges", Number(number) - 1, ...rest].join("."));
  }
}

function adder(name, side, more, editor) {
  const box = document.createElement("span");
  const label = document.createElement("label");
  const input = document.createElement("input");
  const button = document.createElement("button");
  Object.assign(input, { type: "text", autocomplete: "off", spellcheck: false });
  Object.assign(button, { type: "button", className: "door small", textContent: `Add this ${name}` });
  place(input, `${more.key}.${side}`);
  label.append(`Another ${name} `, input);
  const add = () => {
    const value = input.value.trim();
    if (!value) return input.focus();
    more.values[side].add(value);
    return editor.reshaped(`${more.key}.${side}`);
  };
  button.addEventListener("click", add);
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    add();
  });
  box.append(label, " ", button);
  return box;
}

function remover(what, name, value, { meter, names, charges, editor }) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", className: "door small", textContent: "Remove" });
  const unseen = document.createElement("span");
  Object.assign(unseen, { className: "visually-hidden", textContent: ` ${what}` });
  button.append(unseen);
  button.addEventListener("click", () => {
    const gone = new Set(charges.filter((charge) => charge.dimensions[name] === value));
    editor.document.charges = editor.document.charges.filter((charge) => !gone.has(charge));
    extra(meter, names).values[names.indexOf(name)].delete(value);
    editor.reshaped(`${keyOf(meter, names)}.0`);
  });
  return button;
}

function heading(scope, text) {
  const cell = document.createElement("th");
  cell.scope = scope;
  cell.textContent = text;
  return cell;
}

function shown(name, value) {
  return value === "" ? `no ${name}` : value;
}
