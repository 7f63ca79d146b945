// Forms with data-job are sent without leaving the page, which then asks how far the job is.
// Without JavaScript they are ordinary forms, and lead to a page that loads itself again.
"use strict";

for (const form of document.querySelectorAll("form[data-job]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run(form).catch(() => form.submit());
  });
}

async function run(form) {
  const place = form.querySelector("[role=status]");
  const button = form.querySelector("button");
  button.setAttribute("aria-busy", "true");
  try {
    const headers = { Accept: "application/json" };
    const answer = await fetch(form.action, { method: "POST", body: new FormData(form), headers });
    if (answer.status !== 202) throw new Error(answer.status);
    show(place, await wait((await answer.json()).job, place));
  } finally {
    button.removeAttribute("aria-busy");
  }
}

async function wait(url, place) {
  const bar = document.createElement("progress");
  place.replaceChildren(bar);
  for (let pause = 250; ; pause = Math.min(pause * 1.5, 3000)) {
    await new Promise((resolve) => setTimeout(resolve, pause));
    const answer = await fetch(url, { headers: { Accept: "application/json" } }).catch(() => null);
    const job = answer && answer.ok ? await answer.json() : { state: "waiting" };
    if (job.total) [bar.max, bar.value] = [job.total, job.done];
    if (job.state !== "waiting" && job.state !== "running") return job;
  }
}

function show(place, job) {
  place.replaceChildren(job.text);
  place.dataset.state = job.state;
  if (!job.file) return;
  const link = document.createElement("a");
  link.href = job.file;
  link.textContent = "Download";
  place.append(" ", link);
}
