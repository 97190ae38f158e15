// Keeps the page current: waits for a change, then takes the new page's content. What is unfolded stays so.
"use strict";

async function refresh() {
  const answer = await fetch(location.href);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const open = new Set([...document.querySelectorAll("details[open]")].map((details) => details.id));
  for (const details of page.querySelectorAll("details")) details.open = open.has(details.id);
  document.querySelector("main").replaceWith(page.querySelector("main"));
  document.body.dataset.version = page.body.dataset.version;
}

async function follow() {
  const lost = document.getElementById("lost");
  for (;;) {
    try {
      const answer = await fetch(`/changes?since=${document.body.dataset.version}`);
      if (!answer.ok) throw new Error(answer.status);
      await refresh();
      lost.hidden = true;
    } catch {
      lost.hidden = false;
      await new Promise((done) => setTimeout(done, 3000));
    }
  }
}

follow();
