#include "cli/report_assets.h"

namespace rung::cli {

// Colours of runs: distinct without red and green against each other, readable on their ground (contrast
// above 3:1 in both schemes).
const char* const kReportStyle = R"css(
:root { color-scheme: light dark;
  --ground: #fbfbf9; --card: #ffffff; --ink: #1c1e21; --soft: #5d646d; --rule: #e3e4e0; --accent: #1f6f4a; --warn: #a63a1e;
  --c0: #2160a8; --c1: #c4570d; --c2: #6b3fa0; --c3: #0b7a75; --c4: #b3246b; --c5: #6d6a1b; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #15171a; --card: #1d2024; --ink: #e8e8e4; --soft: #a0a7b0; --rule: #33373d; --accent: #6fcf9f; --warn: #f0916f;
  --c0: #6fb1f5; --c1: #f4a259; --c2: #b99af0; --c3: #4fc7bf; --c4: #f07fb2; --c5: #d3cf6a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 40px 0 12px; }
h3 { font-size: 14px; margin: 0 0 8px; font-weight: 600; }
p.lead { color: var(--soft); margin: 0 0 20px; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 20px; margin: 0 0 20px; padding: 0; list-style: none; }
.key { display: inline-flex; align-items: center; gap: 8px; overflow-wrap: anywhere; }
.swatch { width: 18px; height: 4px; border-radius: 2px; flex: none; background: currentColor; }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 500px), 1fr)); }
figure, .card { margin: 0; padding: 16px 18px; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; min-width: 0; }
figcaption { display: flex; flex-wrap: wrap; align-items: baseline; gap: 2px 10px; font-weight: 600; font-size: 14px; margin-bottom: 6px; }
figcaption small, .soft { color: var(--soft); font-weight: 400; font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px; text-align: left; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { color: var(--soft); font-weight: 500; font-size: 13px; }
th:first-child, td:first-child { padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
tbody tr:last-child > * { border-bottom: 0; }
td.number, th.number { text-align: right; white-space: nowrap; }
tbody th { font-weight: 400; white-space: nowrap; }
th .key { min-width: 9em; } th.number .key { justify-content: flex-end; } #numbers { width: auto; min-width: min(100%, 440px); }
td.text { overflow-wrap: anywhere; min-width: 120px; }
tr.total > * { font-weight: 600; }
svg.chart { display: block; width: 100%; height: auto; touch-action: pan-y; }
.chart text { font: 12px system-ui, sans-serif; fill: var(--soft); font-variant-numeric: tabular-nums; }
.chart line.grid { stroke: var(--rule); } .chart line.axis { stroke: var(--soft); }
.chart polyline { fill: none; stroke: currentColor; stroke-linejoin: round; stroke-width: 2; }
.chart polyline.faint { stroke-width: 1; opacity: 0.32; }
.chart polyline.dashed { stroke-width: 1.5; stroke-dasharray: 5 4; }
.chart .point { fill: var(--card); stroke: currentColor; stroke-width: 2; }
.chart .hover line { stroke: var(--soft); stroke-dasharray: 2 3; } .chart .hover circle { fill: currentColor; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); } .c3 { color: var(--c3); } .c4 { color: var(--c4); } .c5 { color: var(--c5); }
.key span:last-child { color: var(--ink); }
#tip { position: fixed; z-index: 1; pointer-events: none; display: none; max-width: 340px; padding: 8px 10px; border-radius: 6px; background: var(--ink);
  color: var(--ground); font-size: 12.5px; line-height: 1.45; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
#tip div { display: flex; justify-content: space-between; gap: 16px; }
.bar { display: flex; height: 22px; border-radius: 4px; overflow: hidden; background: var(--rule); margin: 2px 0 10px; }
.bar > span { height: 100%; border-right: 1px solid var(--card); background: currentColor; min-width: 0; }
.bar > span:nth-child(even) { opacity: 0.72; } .bar > span:nth-child(3n) { opacity: 0.5; }
.label { color: var(--ink); display: flex; justify-content: space-between; gap: 12px; font-size: 13px; font-variant-numeric: tabular-nums; }
dl.sample { display: grid; grid-template-columns: max-content 1fr; gap: 6px 16px; margin: 0; }
dl.sample dt { color: var(--soft); font-size: 13px; padding-top: 1px; }
dl.sample dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; max-height: 240px; overflow-y: auto; }
.right { color: var(--accent); font-weight: 600; } .empty { color: var(--soft); font-style: italic; }
details { margin-top: 12px; } summary { cursor: pointer; color: var(--soft); }
.warn { color: var(--warn); }
@media print { main { max-width: none; } figure, .card { break-inside: avoid; } }
)css";

// Values under the pointer. Text goes in as text, never as markup.
const char* const kReportScript = R"js(
"use strict";
(function () {
  const tip = document.getElementById("tip");
  const svgName = "http://www.w3.org/2000/svg";
  const number = v => Math.abs(v) >= 1e5 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(3) : String(+v.toPrecision(5));
  const nearest = (xs, x) => {
    let low = 0, high = xs.length - 1;
    while (high - low > 1) { const mid = (low + high) >> 1; if (xs[mid] <= x) low = mid; else high = mid; }
    return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
  };
  const add = (parent, name, attributes) => {
    const element = document.createElementNS(svgName, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    parent.appendChild(element);
  };
  for (const svg of document.querySelectorAll("svg.chart")) {
    const data = JSON.parse(svg.dataset.chart), [left, top, right, bottom] = data.box, hover = svg.querySelector(".hover");
    const atX = x => left + (x - data.x[0]) / (data.x[1] - data.x[0]) * (right - left);
    const atY = y => bottom - (y - data.y[0]) / (data.y[1] - data.y[0]) * (bottom - top);
    const leave = () => { hover.replaceChildren(); tip.style.display = "none"; };
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("pointermove", event => {
      const frame = svg.getBoundingClientRect(), unit = svg.viewBox.baseVal.width / frame.width;
      const px = (event.clientX - frame.left) * unit;
      if (px < left - 8 || px > right + 8) return leave();
      const x = data.x[0] + (px - left) / (right - left) * (data.x[1] - data.x[0]);
      // The place that some line has nearest to the pointer; lines with a value close by are said.
      const places = data.lines.filter(l => l.x.length).map(l => l.x[nearest(l.x, x)]);
      const step = places.reduce((a, b) => Math.abs(b - x) < Math.abs(a - x) ? b : a);
      hover.replaceChildren();
      add(hover, "line", { x1: atX(step), x2: atX(step), y1: top, y2: bottom });
      const rows = [[data.xName, number(step)]];
      for (const l of data.lines) {
        if (!l.x.length) continue;
        const i = nearest(l.x, step);
        if (Math.abs(atX(l.x[i]) - atX(step)) > 6) continue;
        rows.push([l.name, number(l.y[i])]);
        if (l.y[i] >= data.y[0] && l.y[i] <= data.y[1]) add(hover, "circle", { class: "c" + l.color, cx: atX(l.x[i]), cy: atY(l.y[i]), r: 4 });
      }
      tip.replaceChildren(...rows.map(([name, value]) => {
        const row = document.createElement("div");
        for (const text of [name, value]) row.appendChild(document.createElement("span")).textContent = text;
        return row;
      }));
      tip.style.display = "block";
      const box = tip.getBoundingClientRect();
      tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 8)) + "px";
      tip.style.top = Math.max(4, event.clientY - box.height - 14) + "px";
    });
  }
})();
)js";

}  // namespace rung::cli
