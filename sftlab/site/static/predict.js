// Marks and scores an interval that is predicted on a lesson's page, as its claim's card does in a
// notebook (sftlab/course/predictions.py). Nothing is kept when the page is left.
const rounded = (number) => String(Number(number.toFixed(3)));

function mark(strip, low, high) {
  const [left, right] = strip.dataset.axis.split(" ").map(Number);
  // What lies beyond the strip is a sliver at its edge.
  const at = (value) => Math.min(Math.max((100 * (value - left)) / (right - left), 0), 99);
  strip.querySelector(".predicted")?.remove();
  const box = document.createElementNS(strip.namespaceURI, "rect");
  const places = { x: `${at(low)}%`, width: `${Math.max(at(high) - at(low), 1)}%`, y: 32.5, height: 11, rx: 3 };
  for (const [name, place] of Object.entries(places)) box.setAttribute(name, place);
  box.classList.add("predicted");
  strip.append(box);
}

function scored(part, low, high, measured) {
  const miss = Math.max(low - measured, measured - high, 0);
  const place = miss ? `lies ${rounded(miss)} ${measured < low ? "below" : "above"}` : "lies in";
  return (
    `Your 80% interval for ${part} (dashed box): ${rounded(low)} to ${rounded(high)}. The measured ` +
    `${rounded(measured)} ${place} it. Its width is ${rounded(high - low)}, its interval score ` +
    `${rounded(high - low + 10 * miss)}: the width plus ten times the distance by which it misses, ` +
    "so smaller is better."
  );
}

for (const form of document.querySelectorAll("form.predict")) {
  const { claim, part } = form.dataset;
  const card = document.getElementById(`claim-${claim}`);
  const strips = [...card.querySelectorAll("svg.strip")].filter((one) => one.dataset.part === part);
  const said = document.createElement("p");
  said.className = "soft";
  form.hidden = strips.length === 0;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const [low, high] = ["low", "high"].map((end) => form.elements[end].valueAsNumber);
    const output = form.querySelector("output");
    if (low > high) {
      output.textContent = "low must not be above high.";
      return;
    }
    for (const strip of strips) mark(strip, low, high);
    said.textContent = scored(part, low, high, Number(strips[0].dataset.value));
    card.querySelector("details").before(said);
    output.innerHTML = `Marked on <a href="#${card.id}">the card of ${claim}</a>, below.`;
  });
}
