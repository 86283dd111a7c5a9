"use strict";
(() => {
  const { keys, texts, recurring, rows: short, page: size } = JSON.parse(document.getElementById("table").textContent);
  const rows = short.map((values, place) => {
    const row = Object.fromEntries(keys.map((key, at) => [key, recurring.includes(key) ? texts[values[at]] : values[at]]));
    return { ...row, reasons: row.reasons.map(number => texts[number]), place };
  });
  const form = document.querySelector("form.find");
  const body = document.querySelector("tbody");
  const blank = document.getElementById("blank").content;
  const turns = [...document.querySelectorAll("nav.turn")];
  let page = 0;

  const element = row => {
    const piece = blank.cloneNode(true);
    const [main, reasons] = piece.querySelectorAll("tr");
    const [link, title] = [main.querySelector("a"), main.querySelector("th .soft")];
    link.textContent = row.scan;
    if (row.link) link.href = row.link; else link.replaceWith(row.scan);
    if (title) title.textContent = row.title;
    const state = main.querySelector(".state");
    state.textContent = row.state;
    state.classList.add(row.state);
    main.querySelectorAll("td.number").forEach((cell, at) => {
      if (row.values[at] === null) return;
      cell.classList.remove("none");
      cell.textContent = row.values[at];
      if (at !== row.first) return;
      const share = document.createElement("span");
      share.className = "share";
      share.style.width = `${row.share}%`;
      cell.append(share);
    });
    const bundle = main.querySelector(".bundle");
    bundle.textContent = row.bundle;
    bundle.classList.toggle("none", !row.bundle.trim());
    const figure = main.querySelector("figure");
    if (row.picture) {
      figure.querySelector("img").alt = `${row.scan}: ${row.pictured}`;
      figure.querySelector("img").src = row.picture;
      figure.querySelector("figcaption").textContent = row.pictured;
    } else figure.remove();
    if (row.reasons.length) {
      reasons.querySelector("ul").append(...row.reasons.map(reason => {
        const item = document.createElement("li");
        item.textContent = reason;
        return item;
      }));
    } else {
      reasons.remove();
      main.classList.remove("explained");
    }
    return piece;
  };

  const orders = {
    look: (a, b) => a.place - b.place,
    scan: (a, b) => a.scan.localeCompare(b.scan, undefined, { numeric: true }),
  };
  const number = (row, at) => row.values[at] === null ? -Infinity : Number(row.values[at]);
  const largest = at => (a, b) => (number(b, at) > number(a, at)) - (number(b, at) < number(a, at)) || a.place - b.place;

  const show = () => {
    const wanted = new FormData(form);
    const [text, order] = [wanted.get("text"), wanted.get("order")];
    const [states, parts] = [wanted.getAll("state"), text.toLowerCase().split(/\s+/).filter(Boolean)];
    const chosen = rows.filter(row => {
      const told = [row.scan, ...row.reasons].join("\n").toLowerCase();
      return states.includes(row.state) && parts.every(part => told.includes(part));
    });
    chosen.sort(orders[order] || largest(Number(order)));
    const last = Math.max(0, Math.ceil(chosen.length / size) - 1);
    page = Math.min(Math.max(page, 0), last);
    const [from, to] = [page * size, Math.min((page + 1) * size, chosen.length)];
    body.replaceChildren(...chosen.slice(from, to).map(element));
    const of = chosen.length === rows.length ? rows.length : `${chosen.length} found, of ${rows.length}`;
    for (const turn of turns) {
      turn.querySelector(".shown").textContent = chosen.length ? `${from + 1} to ${to} of ${of}` : "None was found";
      // Not `disabled`: a button that has the focus would lose it.
      const [back, on] = turn.querySelectorAll("button");
      back.setAttribute("aria-disabled", page === 0);
      on.setAttribute("aria-disabled", page === last);
    }
    // For who comes back from a scan's page, and for links.
    const kept = new URLSearchParams([["text", text], ["order", order], ...states.map(state => ["state", state]), ["page", page + 1]]);
    history.replaceState(null, "", `#${kept}`);
  };

  const restore = () => {
    const kept = new URLSearchParams(location.hash.slice(1));
    if (!kept.has("page")) return;
    form.elements.text.value = kept.get("text") || "";
    for (const option of form.elements.order.options) option.selected = option.value === kept.get("order");
    if (form.elements.order.selectedIndex < 0) form.elements.order.selectedIndex = 0;
    for (const box of form.elements.state) box.checked = kept.getAll("state").includes(box.value);
    page = (parseInt(kept.get("page"), 10) || 1) - 1;
  };

  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("input", () => { page = 0; show(); });
  for (const turn of turns) {
    for (const button of turn.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        if (button.getAttribute("aria-disabled") === "true") return;
        page += Number(button.dataset.step);
        show();
        document.querySelector(".turn").scrollIntoView();
      });
    }
    turn.hidden = false;
  }
  form.hidden = false;
  restore();
  show();
})();
