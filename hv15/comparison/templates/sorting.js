// A click on the title of a column sorts the table by it, the next one the other way round.
for (const header of document.querySelectorAll("thead th")) {
  const sort = () => {
    const table = header.closest("table"), body = table.tBodies[0], place = header.cellIndex;
    const up = header.getAttribute("aria-sort") !== "ascending";
    for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = row => row.cells[place].dataset.value ?? row.cells[place].textContent;
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");  // what was not measured stays below
      const [m, n] = [Number(x), Number(y)];
      return (isNaN(m) || isNaN(n) ? x.localeCompare(y) : m - n) * (up ? 1 : -1);
    };
    body.append(...[...body.rows].sort(order));
  };
  header.addEventListener("click", sort);
  header.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
}
