// Keeps the page current: waits for a change, then takes the new page's content. What is unfolded stays so.
// Only while it is seen: a browser has six connections to an address, and each page that waits keeps one.
"use strict";

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

async function untilSeen() {
  while (document.hidden) {
    await new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));
  }
}

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
    await untilSeen();
    try {
      const answer = await fetch(`/changes?since=${document.body.dataset.version}`);
      if (!answer.ok) throw new Error(answer.status);
      await refresh();
      lost.hidden = true;
      await pause(1000); // where something changes all the time, it needn't be seen more often
    } catch {
      lost.hidden = false;
      await pause(3000);
    }
  }
}

follow();
