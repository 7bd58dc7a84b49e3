/** What the validator and the linter say, beside the fields it concerns. */

/** Show faults, each beside the field whose place it names, and all in the list above. Returns nothing. */
export function showFaults(form, faults) {
  clear(form, "fault");
  const list = form.querySelector("#to-mend ul");
  form.querySelector("#to-mend").hidden = !faults.length;
  list.replaceChildren(...faults.map((fault) => {
    const element = fault.path ? nearest(form, fault.path) : null;
    if (element) beside(element, "fault", fault.message);
    return entry(element, fault.message, "");
  }));
}

/** Show what the linter finds, beside the fields and in the list at the side. */
export function showFindings(form, findings) {
  clear(form, "finding");
  const list = form.querySelector("#found");
  list.replaceChildren(...findings.map((finding) => {
    const word = finding.severity === "blocking" ? "Must be mended before publishing: " : "Warning: ";
    const element = nearest(form, finding.path);
    if (element) beside(element, "finding", word + finding.message);
    return entry(element, finding.message, word);
  }));
  if (!findings.length) list.replaceChildren(item("Nothing found."));
}

/** Move the keyboard to the field at a place. */
export function focusAt(root, path) {
  const element = path && nearest(root, path);
  if (!element) return;
  element.closest("details")?.setAttribute("open", "");
  const control = element.matches("input, select") ? element : element.querySelector("input:not([hidden]), select, button");
  control?.focus();
}

/** Return the element that stands at a place, or else at the nearest that contains it. */
function nearest(root, path) {
  const parts = path.split(".");
  for (let length = parts.length; length > 0; length -= 1) {
    const wanted = parts.slice(0, length).join(".");
    const element = [...root.querySelectorAll("[data-path]")].find((one) => one.dataset.path === wanted);
    if (element) return element;
  }
  return null;
}

function beside(element, kind, message) {
  const field = element.closest(".field, td") ?? element;
  const note = document.createElement("p");
  note.className = `note ${kind}`;
  note.textContent = message;
  note.id = `${kind}-${document.querySelectorAll(`.${kind}`).length}`;
  if (element.matches("tr")) below(element, note);
  else field.append(note);
  if (kind === "fault") for (let fold = element.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  const control = element.matches("input, select") ? element : element.matches(".field, .row, td, tr") && element.querySelector("input, select");
  if (!control) return;
  if (kind === "fault") control.setAttribute("aria-invalid", "true");
  describe(control, note.id, true);
}

/** Put a note about a row of a table below it, over the table's width. */
function below(row, note) {
  const between = document.createElement("tr");
  between.className = "note-row";
  const cell = between.insertCell();
  cell.colSpan = row.cells.length;
  cell.append(note);
  row.after(between);
}

function clear(form, kind) {
  for (const note of form.querySelectorAll(`.note.${kind}`)) {
    const control = form.querySelector(`[aria-describedby~="${note.id}"]`);
    if (control) describe(control, note.id, false);
    (note.closest("tr.note-row") ?? note).remove();
  }
  if (kind === "fault") for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
}

function describe(control, id, isDescribed) {
  const ids = new Set((control.getAttribute("aria-describedby") ?? "").split(" ").filter(Boolean));
  if (isDescribed) ids.add(id);
  else ids.delete(id);
  control.setAttribute("aria-describedby", [...ids].join(" "));
}

function entry(element, message, word) {
  const row = item(word ? "" : message);
  if (word) {
    const strong = document.createElement("strong");
    strong.textContent = word;
    row.append(strong, message);
  }
  if (!element) return row;
  const name = nameOf(element);
  if (name) row.prepend(`${name}: `);
  const button = document.createElement("button");
  Object.assign(button, { type: "button", className: "door small", textContent: "Show" });
  const unseen = document.createElement("span");
  Object.assign(unseen, { className: "visually-hidden", textContent: ` ${name || "the field"}` });
  button.append(unseen);
  button.addEventListener("click", () => focusAt(document.getElementById("editor"), element.dataset.path));
  row.append(" ", button);
  return row;
}

/** Say where something is: the section, and the band or field in it. */
function nameOf(element) {
  const section = element.closest(".panel")?.querySelector("h2")?.textContent ?? "";
  const band = element.closest(".bands tbody tr");
  const field = element.closest(".field")?.querySelector(".label")?.textContent ?? element.getAttribute("aria-label")
    ?? (element.matches("td") ? element.querySelector("input")?.getAttribute("aria-label") : "");
  const number = band && [...band.parentNode.querySelectorAll("tr[data-path]")].indexOf(band) + 1;
  return [section, number && `band ${number}`, field].filter(Boolean).join(", ");
}

function item(text) {
  const row = document.createElement("li");
  row.textContent = text;
  return row;
}
