'use strict';
const tip = document.getElementById('tip');
const frame = document.getElementById('frame');
const NEAR = 24;
let marked = null;

function hide() {
  tip.hidden = frame.hidden = true;
  if (marked) marked.classList.remove('here');
  marked = null;
}

function distance(mark, x, y) {
  const box = mark.getBoundingClientRect();
  const dx = Math.max(box.left - x, 0, x - box.right);
  const dy = Math.max(box.top - y, 0, y - box.bottom);
  const cx = (box.left + box.right) / 2 - x;
  const cy = (box.top + box.bottom) / 2 - y;
  return Math.hypot(dx, dy) + Math.hypot(cx, cy) / 1e3;
}

function say(text, box) {
  tip.textContent = text;
  tip.hidden = false;
  const left = Math.min(box.right + 12, innerWidth - tip.offsetWidth - 8);
  const below = box.bottom + 10 + tip.offsetHeight < innerHeight;
  tip.style.left = `${Math.max(left, 8)}px`;
  tip.style.top = `${below ? box.bottom + 10 : box.top - tip.offsetHeight - 10}px`;
}

// A dot or a bar: the nearest says its text.
function showMark(svg, x, y) {
  let nearest = null;
  let least = NEAR;
  for (const mark of svg.querySelectorAll('[data-t]')) {
    const d = distance(mark, x, y);
    if (d < least) [nearest, least] = [mark, d];
  }
  if (nearest === marked) return;
  hide();
  if (!nearest) return;
  marked = nearest;
  marked.classList.add('here');
  say(marked.dataset.t, marked.getBoundingClientRect());
}

// A grid is one image: the cell below the pointer says its names and value.
function showCell(image, x, y) {
  const box = image.getBoundingClientRect();
  image.cells ??= JSON.parse(image.dataset.cells);
  const { rows, columns, unit, values } = image.cells;
  const wide = box.width / columns.length;
  const tall = box.height / rows.length;
  const r = Math.floor((y - box.top) / tall);
  const c = Math.floor((x - box.left) / wide);
  const value = values[r]?.[c];
  if (value === undefined) return hide();
  const left = box.left + c * wide;
  const top = box.top + r * tall;
  Object.assign(frame.style, {
    left: `${left}px`, top: `${top}px`, width: `${wide}px`, height: `${tall}px`,
  });
  frame.hidden = false;
  say(`${rows[r]}\n${columns[c]}\n${unit} ${value ?? 'undefined'}`,
    new DOMRect(left, top, wide, tall));
}

function show(event) {
  const svg = event.currentTarget;
  const image = svg.querySelector('[data-cells]');
  if (image) showCell(image, event.clientX, event.clientY);
  else showMark(svg, event.clientX, event.clientY);
}

for (const svg of document.querySelectorAll('svg')) {
  svg.addEventListener('pointermove', show);
  svg.addEventListener('pointerdown', show);
  svg.addEventListener('pointerleave', hide);
}
addEventListener('scroll', hide, { passive: true });

// A click on a head sorts by its column, and again the other way.
const size = (cell) => Number(cell.textContent.replace(/[,%]/g, ''));

function sort(table, column, down) {
  const body = table.tBodies[0];
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [size(a.cells[column]), size(b.cells[column])];
    if (column && !(Number.isNaN(x) && Number.isNaN(y))) {
      if (Number.isNaN(x)) return 1;
      if (Number.isNaN(y)) return -1;
      return down ? y - x : x - y;
    }
    const order = a.cells[column].textContent < b.cells[column].textContent;
    return order === down ? 1 : -1;
  });
  body.append(...rows);
}

for (const table of document.querySelectorAll('table.sortable')) {
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    const button = document.createElement('button');
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener('click', () => {
      const down = head.getAttribute('aria-sort') !== 'descending';
      for (const one of table.tHead.rows[0].cells) one.removeAttribute('aria-sort');
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      sort(table, column, down);
    });
  }
}
