// What the theme opens with a click only is reached by keyboard, too, and has a name that can be read out.

// Its loader would write a style into the page, which our policy refuses.
window.htmx.config.includeIndicatorStyles = false;

// It would tell the bar of a list's actions its width in a style attribute, which the policy refuses, too; the style sheet does.
document.addEventListener("alpine:init", () => {
  for (const element of document.querySelectorAll("[x-bind\\:style]")) element.removeAttribute("x-bind:style");
});

const names = { dock_to_right: "Show or hide the navigation", close: "Close", more_horiz: "More" };

function makeReachable(element) {
  const words = element.textContent.trim();
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

document.addEventListener("DOMContentLoaded", () => {
  for (const element of document.querySelectorAll("[x-on\\:click]")) {
    if (!element.matches("a[href], button, input, select, textarea, [tabindex]")) makeReachable(element);
  }
  // Symbols are words to a screen reader: "chevron_right".
  for (const symbol of document.querySelectorAll(".material-symbols-outlined:not([role])")) {
    symbol.setAttribute("aria-hidden", "true");
  }
});
