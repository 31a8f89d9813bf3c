// How long the rollouts in the list are, how many sentences they have, how they were scored.

import { h, number } from "./dom.js";

/** Three histograms of what `find` of api.js answered. */
export function histograms({ histograms: bins, medians, total }) {
  const median = (name) => (name in medians ? `median ${number(medians[name])}` : "");
  const scored = bins.score.filter((bin) => bin.from < 5);
  const sum = scored.reduce((all, bin) => all + bin.count, 0);
  const mean = sum ? `mean ${(scored.reduce((all, bin) => all + bin.count * bin.from, 0) / sum).toFixed(1)}` : "";
  const name = (bin) => (bin.from < 5 ? `score ${bin.from}` : "not revised");
  return [
    figure("Length, tokens", median("tokens"), bins.tokens, { total, axis: range(bins.tokens) }),
    figure("Sentences", median("sentences"), bins.sentences, { total, axis: range(bins.sentences) }),
    figure("Lowest score", mean, bins.score, { total, name, look: (bin) => `s${bin.from}`, axis: ["1", "2", "3", "4", "none"] }),
  ];
}

const last = (bin) => bin.to - 1;
const interval = (bin) => (bin.from === last(bin) ? number(bin.from) : `${number(bin.from)} to ${number(last(bin))}`);

function range(bins) {
  if (!bins.length) return [];
  const middle = bins[Math.floor(bins.length / 2)];
  return [number(bins[0].from), bins.length > 2 && number(middle.from), bins.length > 1 && number(last(bins.at(-1)))].filter(Boolean);
}

function figure(title, middle, bins, { total, axis, name = interval, look = () => "" }) {
  const most = Math.max(1, ...bins.map((bin) => bin.count));
  const bars = bins.map((bin) => {
    const bar = h("span", { class: `r-bar ${look(bin)} ${bin.count ? "" : "empty"}`, title: `${name(bin)}: ${number(bin.count)}` });
    bar.style.height = bin.count ? `max(2px, ${(100 * bin.count) / most}%)` : "0";
    return bar;
  });
  const spoken = bins.filter((bin) => bin.count).map((bin) => `${name(bin)}: ${number(bin.count)}`);
  const label = [`${title} of ${number(total)} records`, middle, ...spoken].filter(Boolean).join(", ");
  return h(
    "figure",
    { class: "r-hist" },
    h("figcaption", {}, h("h2", { class: "d-label" }, title), h("span", { class: "d-label d-num" }, middle)),
    h("div", { class: "r-bars", role: "img", "aria-label": label }, bars),
    h("div", { class: bins.length === axis.length ? "r-axis each" : "r-axis", "aria-hidden": "true" }, axis.map((text) => h("span", {}, text))),
  );
}
