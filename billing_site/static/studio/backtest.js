// Keeps the progress of a running backtest up to date, and shows what it found once it is over.

const PAUSE_MILLISECONDS = 2000;
const place = document.querySelector(".backtest-progress");

async function look() {
  try {
    const answer = await fetch(place.dataset.url, { headers: { Accept: "application/json" } });
    if (answer.ok && !answer.redirected) {
      const { status, percent, words } = await answer.json();
      if (status !== "running") {
        location.reload();
        return;
      }
      place.querySelector("progress").value = percent;
      const said = place.querySelector("[role=status]");
      if (said.textContent !== words) said.textContent = words;
    }
  } catch {
    // The server is away for a moment: the next look will tell.
  }
  setTimeout(look, PAUSE_MILLISECONDS);
}

if (place) setTimeout(look, PAUSE_MILLISECONDS);
