/** Controls, and the members of a document that they show. Numbers stay texts: nothing is calculated here. */

const GROUPED = /^\d{1,3}([, ]\d{3})+(\.\d+)?$/;
let numbered = 0;

/** Return a copy of what a <template> holds. */
export function copyOf(id) {
  return document.getElementById(id).content.cloneNode(true).firstElementChild;
}

/** Return a number as documents write it: "1,000,000" is 1000000. What is no number stays as it was typed, and is refused. */
export function plainNumber(text) {
  const trimmed = text.trim();
  return GROUPED.test(trimmed) ? trimmed.replace(/[, ]/g, "") : trimmed;
}

/** Return a number as people write it. */
export function groupedNumber(value) {
  const parts = /^(\d+)(\.\d+)?$/.exec(String(value ?? ""));
  return parts ? parts[1].replace(/\B(?=(\d{3})+$)/g, ",") + (parts[2] ?? "") : String(value ?? "");
}

/** Order two decimals as texts; what is none comes last. */
export function inOrder(one, other) {
  const [left, right] = [one, other].map((text) => /^0*(\d*)(?:\.(\d*))?$/.exec(String(text ?? "")));
  if (!left || !right) return Number(!left) - Number(!right);
  if (left[1].length !== right[1].length) return left[1].length - right[1].length;
  const [first, second] = [left, right].map((parts) => parts[1] + (parts[2] ?? ""));
  return first < second ? -1 : Number(first > second);
}

/** Call back at each keystroke with what was typed; when the field is left, numbers get their thousands apart. */
export function onEdit(control, write) {
  control.addEventListener(control.tagName === "SELECT" ? "change" : "input", () => write(control.value));
  if (control.dataset.kind === "number") {
    control.addEventListener("change", () => { control.value = groupedNumber(plainNumber(control.value)); });
  }
}

/** Show the members of `target`, which stands at `path`, in the controls below `root` that name one. */
export function bind(root, target, path, edited) {
  for (const control of root.querySelectorAll("[data-field]")) {
    const name = control.dataset.field;
    const kind = control.tagName === "SELECT" ? "choice" : control.dataset.kind;
    place(control.closest(".field") ?? control, path ? `${path}.${name}` : name);
    show(control, target[name], kind);
    onEdit(control, (typed) => {
      target[name] = read(typed, kind);
      edited(name);
    });
  }
  explain(root);
}

/** Name the place of the document at which an element stands, by which faults find it. */
export function place(element, path) {
  element.dataset.path = path;
}

/** Fill in units and currency where they are to be read. */
export function say(root, said) {
  for (const element of root.querySelectorAll("[data-say]")) {
    const text = said[element.dataset.say];
    if (text !== undefined) element.textContent = text;
  }
}

/** Tie each control to the sentence that explains it. */
function explain(root) {
  for (const field of root.querySelectorAll(".field")) {
    const help = field.querySelector(".help");
    const control = field.querySelector("input, select");
    if (!help || !control || help.id) continue;
    help.id = `help-${(numbered += 1)}`;
    control.setAttribute("aria-describedby", help.id);
  }
}

function show(control, value, kind) {
  if (kind === "choice") {
    // A choice that is not among the options is kept: it is shown as it is.
    if (value != null && ![...control.options].some((one) => one.value === String(value))) control.add(new Option(value, value));
    if (value != null) control.value = value;
  } else {
    control.value = kind === "number" ? groupedNumber(value) : String(value ?? "");
  }
}

function read(typed, kind) {
  if (kind === "choice" || kind === "text") return typed;
  const plain = plainNumber(typed);
  if (!plain) return null;
  return kind === "whole" && /^\d{1,9}$/.test(plain) ? Number(plain) : plain;
}
