// The calculator: sends usage, and the document that is being edited, and shows the answer. It calculates nothing.

const PAUSE = 250; // milliseconds without a change before the server is asked

const FAILURE = '<div data-part="results"><p class="refusal">The price could not be asked for. Are you still signed in?</p></div>';

class Calculator {
  constructor(section) {
    this.section = section;
    this.document = null; // what is stored, until the editor says otherwise
    this.asked = 0;
    section.addEventListener("input", (event) => this.entered(event.target));
    document.addEventListener("studio:document", (event) => {
      this.document = event.detail.document;
      this.askSoon();
    });
    this.ask();
  }

  entered(field) {
    const dial = field.closest(".dial");
    if (field.name === "slider") dial.querySelector("[name=quantity]").value = field.value;
    if (field.name === "quantity") dial.querySelector("[name=slider]").value = field.value;
    this.askSoon();
  }

  askSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), PAUSE);
  }

  async ask() {
    const number = ++this.asked;
    this.section.setAttribute("aria-busy", "true");
    let html;
    try {
      const answer = await fetch(this.section.dataset.url, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-CSRFToken": token() },
        body: JSON.stringify(this.question()),
      });
      html = (await answer.json()).html;
    } catch {
      html = FAILURE;
    }
    if (number !== this.asked) return; // a newer question is on its way
    this.show(html);
    this.section.removeAttribute("aria-busy");
  }

  question() {
    const question = { document: this.document, usage: [...this.section.querySelectorAll(".dial")].map(usage) };
    const against = this.section.querySelector("[name=against]");
    if (against) question.against = whole(against.value);
    else if (this.section.dataset.against) question.against = whole(this.section.dataset.against);
    const drawn = this.section.querySelector("[name=drawn]");
    if (drawn) question.drawn = whole(drawn.value);
    return question;
  }

  // What somebody types into is left alone as long as the same usage can be entered.
  show(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    for (const part of template.content.querySelectorAll("[data-part]")) {
      const shown = this.section.querySelector(`[data-part=${part.dataset.part}]`);
      if (!shown) this.section.append(part);
      else if (part.dataset.part !== "inputs" || shape(part) !== shape(shown)) this.replace(shown, part);
    }
  }

  replace(shown, part) {
    const open = [...shown.querySelectorAll("details")].map((each) => each.open);
    shown.replaceWith(part);
    part.querySelectorAll("details").forEach((each, index) => { each.open = Boolean(open[index]); });
  }
}

function usage(dial) {
  const events = dial.querySelector("[name=events]");
  return {
    meter: dial.dataset.meter,
    dimensions: Object.fromEntries(new URLSearchParams(dial.dataset.dimensions)),
    quantity: dial.querySelector("[name=quantity]").value || "0",
    events: events ? events.value || "0" : "1",
  };
}

function shape(part) {
  const dials = [...part.querySelectorAll(".dial")].map((dial) => [
    dial.dataset.meter,
    dial.dataset.dimensions,
    dial.querySelector("legend").textContent,
    dial.querySelector("[name=slider]").max,
    Boolean(dial.querySelector("[name=events]")),
  ]);
  return JSON.stringify([dials, [...part.querySelectorAll("option")].map((option) => option.text)]);
}

function whole(text) {
  return text === "" ? null : Number(text);
}

function token() {
  const field = document.querySelector("[name=csrfmiddlewaretoken]");
  if (field) return field.value;
  const cookie = document.cookie.split("; ").find((each) => each.startsWith("csrftoken="));
  return cookie ? cookie.slice("csrftoken=".length) : "";
}

const section = document.getElementById("calculator");
if (section) new Calculator(section);
