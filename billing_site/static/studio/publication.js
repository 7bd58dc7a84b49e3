// Brings the countdown and the progress of a publication up to date, by asking for its page again, for as long as something moves.

const PAUSE = 5000; // milliseconds

function replace(fresh, id) {
  const [shown, next] = [document.getElementById(id), fresh.getElementById(id)];
  if (shown && next && shown.outerHTML !== next.outerHTML) shown.replaceWith(document.adoptNode(next));
}

function removeIfGone(fresh, id) {
  if (!fresh.getElementById(id)) document.getElementById(id)?.remove();
}

async function refresh() {
  if (!document.hidden) {
    const answer = await fetch(location.href).catch(() => null); // away for a moment: the next time will do
    if (answer?.ok && !answer.redirected) {
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      replace(fresh, "state");
      replace(fresh, "progress");
      removeIfGone(fresh, "undo"); // not replaced, as somebody may be about to press it
    }
  }
  again();
}

function again() {
  if (document.getElementById("state")?.dataset.moves === "yes") setTimeout(refresh, PAUSE);
}

again();
