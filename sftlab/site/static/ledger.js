// Filters the ledger by verdict and lesson; without this script all claims are shown.
const form = document.querySelector("form.filter");
const rows = [...document.querySelectorAll("table.ledger tbody tr")];

function filter() {
  const { verdict, lesson } = Object.fromEntries(new FormData(form));
  const isShown = ({ dataset }) =>
    (!lesson || dataset.lesson === lesson) &&
    (!verdict || (["surprise", "real"].includes(verdict) ? verdict in dataset : dataset.verdict === verdict));
  for (const row of rows) row.hidden = !isShown(row);
  const count = rows.filter((row) => !row.hidden).length;
  form.querySelector("output").textContent = `${count} of ${rows.length} claims`;
}

form.hidden = false;
form.addEventListener("change", filter);
// A link to one claim shows all of them, so that its row is there.
window.addEventListener("hashchange", () => { form.reset(); filter(); });
filter();
