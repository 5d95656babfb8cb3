'use strict';
const tip = document.getElementById('tip');
const NEAR = 24;
let marked = null;

function hide() {
  tip.hidden = true;
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

function show(event) {
  let nearest = null;
  let least = NEAR;
  for (const mark of event.currentTarget.querySelectorAll('[data-t]')) {
    const d = distance(mark, event.clientX, event.clientY);
    if (d < least) [nearest, least] = [mark, d];
  }
  if (nearest === marked) return;
  hide();
  if (!nearest) return;
  marked = nearest;
  marked.classList.add('here');
  tip.textContent = marked.dataset.t;
  tip.hidden = false;
  const box = marked.getBoundingClientRect();
  const left = Math.min(box.right + 12, innerWidth - tip.offsetWidth - 8);
  const below = box.bottom + 10 + tip.offsetHeight < innerHeight;
  tip.style.left = `${Math.max(left, 8)}px`;
  tip.style.top = `${below ? box.bottom + 10 : box.top - tip.offsetHeight - 10}px`;
}

for (const svg of document.querySelectorAll('svg')) {
  svg.addEventListener('pointermove', show);
  svg.addEventListener('pointerdown', show);
  svg.addEventListener('pointerleave', hide);
}
addEventListener('scroll', hide, { passive: true });
