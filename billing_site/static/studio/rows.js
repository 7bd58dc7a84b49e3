/** Lists within a charge (limits, alerts), the bands of a price, and the features of a version. */

import { bind, copyOf, groupedNumber, inOrder, onEdit, place, plainNumber } from "./fields.js";

const WINDOW = /^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?)?$/;

/** Show the limits of a charge. `list` has `path`, `edited()` and `reshaped(path)`, which shows all anew. */
export function showLimits(root, limits, list) {
  limits.forEach((limit, index) => {
    const row = copyOf("limit");
    const path = `${list.path}.${index}`;
    place(row, path);
    bind(row, limit, path, list.edited);
    const parts = WINDOW.exec(limit.window ?? "") ?? [];
    ["D", "H", "M"].forEach((unit, position) => {
      const control = row.querySelector(`[data-part=${unit}]`);
      control.value = parts[position + 1] ?? "";
      onEdit(control, () => {
        limit.window = lengthIn(row);
        list.edited();
      });
    });
    removing(row, limits, index, list);
    root.append(row);
  });
}

function lengthIn(row) {
  const [days, hours, minutes] = ["D", "H", "M"].map((unit) => {
    const typed = row.querySelector(`[data-part=${unit}]`).value.trim();
    return typed ? typed + unit : "";
  });
  return `P${days}${hours || minutes ? "T" : ""}${hours}${minutes}`;
}

/** Show the alerts of a charge. */
export function showThresholds(root, thresholds, list) {
  thresholds.forEach((threshold, index) => {
    const row = copyOf("threshold");
    place(row, `${list.path}.${index}`);
    const [value, measure, once] = ["value", "measure", "once"].map((part) => row.querySelector(`[data-part=${part}]`));
    measure.value = ["percent", "quantity", "amount"].find((name) => name in threshold) ?? "percent";
    value.value = groupedNumber(threshold[measure.value]);
    once.value = threshold.once ?? "period";
    const write = () => {
      for (const name of ["percent", "quantity", "amount", "once"]) delete threshold[name];
      const typed = plainNumber(value.value);
      threshold[measure.value] = measure.value === "percent" && /^\d{1,9}$/.test(typed) ? Number(typed) : typed || null;
      if (once.value !== "period") threshold.once = once.value;
      list.edited();
    };
    [value, measure, once].forEach((control) => onEdit(control, write));
    removing(row, thresholds, index, list);
    root.append(row);
  });
}

/** Show the bands of a price: each begins where the one before ends, so that there is no gap and no overlap. */
export function showBands(table, bands, { path, amount, unit, head, edited, reshaped }) {
  const body = table.tBodies[0];
  bands.forEach((band, index) => {
    const row = copyOf("band");
    const isLast = index === bands.length - 1;
    const where = `${path}.${index}`;
    place(row, where);
    const upTo = row.querySelector("[data-field=up_to]");
    const price = row.querySelector("[data-amount]");
    price.dataset.field = amount;
    // Where there is no room for the table's head, each cell has its own.
    price.closest("td").dataset.label = head;
    bind(row, band, where, () => {
      sayFrom(body, bands, unit);
      edited();
    });
    upTo.hidden = isLast;
    row.querySelector(".open").hidden = !isLast;
    upTo.addEventListener("change", () => {
      if (sortBands(bands)) reshaped(`${path}.${bands.indexOf(band)}.up_to`);
    });
    const remove = row.querySelector("[data-act=remove]");
    remove.hidden = bands.length === 1;
    remove.addEventListener("click", () => {
      bands.splice(index, 1);
      // The last band has no end, whichever it is.
      bands[bands.length - 1].up_to = null;
      reshaped(`${path}.0.${amount}`);
    });
    body.append(row);
  });
  sayFrom(body, bands, unit);
}

/** Add a band before the last one, with the last one's price to begin with. */
export function addBand(bands, amount) {
  const last = bands[bands.length - 1];
  bands.splice(bands.length - 1, 0, { ...last, up_to: null, [amount]: last[amount] });
  return bands.length - 2;
}

function sortBands(bands) {
  const before = bands.slice(0, -1);
  const sorted = [...before].sort((one, other) => inOrder(one.up_to, other.up_to));
  if (sorted.every((band, index) => band === before[index])) return false;
  bands.splice(0, before.length, ...sorted);
  return true;
}

function sayFrom(body, bands, unit) {
  [...body.querySelectorAll("tr[data-path]")].forEach((row, index) => {
    const from = index ? bands[index - 1].up_to : null;
    row.querySelector(".from").textContent = index ? `above ${from ? groupedNumber(from) : "…"}` : `the first ${unit}`;
  });
}

function removing(row, items, index, list) {
  row.querySelector("[data-act=remove]").addEventListener("click", () => {
    items.splice(index, 1);
    list.reshaped(list.path);
  });
}

/** Show the features: rows of name, kind and value. */
export function showFeatures(root, features, edited) {
  const reshape = () => {
    showFeatures(root, features, edited);
    edited();
  };
  root.replaceChildren(...features.map((feature, index) => featureRow(feature, edited, () => {
    features.splice(index, 1);
    reshape();
  })));
}

function featureRow(feature, edited, remove) {
  const row = copyOf("feature");
  const part = (name) => row.querySelector(`[data-part=${name}]`);
  const shape = () => {
    for (const label of row.querySelectorAll("[data-of]")) label.hidden = label.dataset.of !== feature.kind;
  };
  const named = () => place(row, `features.${feature.code}`);
  part("code").value = feature.code;
  part("kind").value = feature.kind;
  part("flag").value = feature.value === false ? "no" : "yes";
  part("number").value = feature.kind === "number" ? feature.value : "";
  part("text").value = feature.kind === "text" ? feature.value : "";
  const read = () => {
    feature.kind = part("kind").value;
    const typed = part(feature.kind).value;
    feature.value = feature.kind === "flag" ? typed === "yes" : feature.kind === "number" ? plainNumber(typed) : typed;
    shape();
    edited();
  };
  ["kind", "flag", "number", "text"].forEach((name) => onEdit(part(name), read));
  onEdit(part("code"), (typed) => {
    feature.code = typed.trim();
    named();
    edited();
  });
  row.querySelector("[data-act=remove]").addEventListener("click", remove);
  shape();
  named();
  return row;
}

/**
 * Write the features as JSON: whole numbers exactly as typed, however long; what is none as nothing, which is refused. So is the name that a
 * second feature of one name gets, instead of being lost.
 */
export function featuresText(features) {
  const written = new Map();
  for (const { code, kind, value } of features) {
    const isNumber = kind === "number";
    const name = written.has(code) ? `${code} (again)` : code;
    written.set(name, !isNumber ? JSON.stringify(value) : /^-?(0|[1-9]\d*)$/.test(value) ? value : "null");
  }
  return `{${[...written].map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(",")}}`;
}
