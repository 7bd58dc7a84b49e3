// What the theme opens with a click only is reached by keyboard, too, and has a name that can be read out.

const names = { dock_to_right: "Show or hide the navigation", close: "Close" };

function makeReachable(element) {
  const words = [...element.childNodes].map((node) => node.textContent.trim()).join(" ").trim();
  element.setAttribute("role", "button");
  element.setAttribute("tabindex", "0");
  if (names[words]) element.setAttribute("aria-label", names[words]);
  element.addEventListener("keydown", (event) => {
    if (event.target === element && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      element.click();
    }
  });
}

function hideSymbols(root) {
  for (const symbol of root.querySelectorAll(".material-symbols-outlined:not([role])")) {
    symbol.setAttribute("aria-hidden", "true");
  }
}

for (const element of document.querySelectorAll("[x-on\\:click]")) {
  if (!element.matches("a[href], button, input, select, textarea, [tabindex]")) makeReachable(element);
}
hideSymbols(document);
