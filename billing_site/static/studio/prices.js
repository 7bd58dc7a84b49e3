/** The price of a charge: its model, and the controls of what that model knows. */

import { bind, copyOf, place, say } from "./fields.js";
import { addBand, showBands } from "./rows.js";

// What a price said under a model that it does not have now, so that trying another model loses nothing.
const forgotten = new WeakMap();

/** Return the controls of `charge.price`. `context`: path, said (units), currency, state, edited(), reshaped(path), fold(details). */
export function priceControls(charge, context) {
  const price = (charge.price ??= { model: "per_unit", unit_amount: null });
  const path = `${context.path}.price`;
  const root = copyOf("price");
  place(root, path);
  const known = context.state.priceFields[price.model] ?? [];
  for (const field of root.querySelectorAll(".field")) {
    if (!belongs(field, price.model, known)) field.remove();
  }
  const transform = root.querySelector("[data-transform]");
  showTransform(transform, price, known, path, context);
  const details = root.querySelector("[data-fold]");
  bindOutside(root, transform, price, path, (name) => {
    if (name !== "model") return context.edited();
    changeModel(charge, price, context.state.priceFields);
    return context.reshaped(`${path}.model`);
  });
  root.querySelector(".field.model .help").textContent = context.state.models[price.model] ?? "";
  showBandTable(root, price, known, path, context);
  say(root, { ...context.said, currency: context.currency, price: `${context.currency} per ${context.said.one}` });
  context.fold(details, charge.price);
  return root;
}

function belongs(field, model, known) {
  const name = field.querySelector("[data-field]").dataset.field;
  if (field.closest("[data-transform]") || name === "model") return true;
  return known.includes(name) && (!field.dataset.models || field.dataset.models === model);
}

function bindOutside(root, apart, price, path, edited) {
  // The transform is an object of its own: its controls are not the price's.
  const stand = document.createComment("");
  apart.replaceWith(stand);
  bind(root, price, path, edited);
  stand.replaceWith(apart);
}

function showTransform(root, price, known, path, context) {
  root.hidden = !known.includes("transform");
  if (root.hidden) {
    root.replaceChildren();
    return;
  }
  const transform = price.transform ?? { op: "", by: null, round: "none" };
  bind(root, transform, `${path}.transform`, (name) => {
    price.transform = transform.op ? transform : null;
    if (name === "op") context.reshaped(`${path}.transform.op`);
    else context.edited();
  });
  for (const field of root.querySelectorAll(".of-transform")) field.hidden = !transform.op;
}

function showBandTable(root, price, known, path, context) {
  const box = root.querySelector("[data-bands]");
  if (!known.includes("bands")) {
    box.remove();
    return;
  }
  const amount = amountOf(price.model);
  const bands = (price.bands ??= [{ up_to: null, [amount]: null, flat_amount: "0" }]);
  const unit = amount === "rate" ? context.currency : context.said.one;
  box.querySelector("caption").textContent = `Bands of ${amount === "rate" ? "value" : context.said.many} beyond the allowance`;
  const head = amount === "rate" ? "Rate (%)" : `${context.currency} per ${context.said.one}`;
  box.querySelector("[data-head]").textContent = head;
  place(box, `${path}.bands`);
  showBands(box.querySelector("table"), bands, { ...context, path: `${path}.bands`, amount, unit, head });
  box.querySelector("[data-act=band]").addEventListener("click", () => {
    context.reshaped(`${path}.bands.${addBand(bands, amount)}.up_to`);
  });
}

function amountOf(model) {
  return model === "graduated_percentage" ? "rate" : "unit_amount";
}

/** Take over into the new model what it knows; what it does not know comes back with a model that does. */
function changeModel(charge, price, priceFields) {
  const kept = forgotten.get(charge) ?? {};
  const known = priceFields[price.model];
  const wasPriced = price.unit_amount ?? price.bands?.[0]?.unit_amount ?? null;
  for (const name of new Set(Object.values(priceFields).flat())) {
    if (known.includes(name)) {
      price[name] ??= kept[name];
      if (price[name] === undefined) delete price[name];
    } else if (name in price) {
      kept[name] = price[name];
      delete price[name];
    }
  }
  forgotten.set(charge, kept);
  if (known.includes("unit_amount")) price.unit_amount ??= wasPriced;
  if (known.includes("bands")) price.bands = bandsFor(price.bands, amountOf(price.model), wasPriced);
}

function bandsFor(bands, amount, priced) {
  const other = amount === "rate" ? "unit_amount" : "rate";
  const first = { up_to: null, [amount]: amount === "rate" ? null : priced, flat_amount: "0" };
  return (bands ?? [first]).map((band) => {
    const { [other]: foreign, ...rest } = band;
    return amount in rest ? rest : { ...rest, [amount]: foreign ?? null };
  });
}
