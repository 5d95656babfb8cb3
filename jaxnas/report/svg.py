"""Turns a drawing into files, and into SVG that stands in a page.

In a page, colours are variables of its style sheet, and what hovering says
stands in `data-t` of each dot or bar, or in `data-cells` of a grid; page.js
shows it as text.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from jaxnas.report import charts, drawing, sheet
from jaxnas.report.palette import LIGHT
from jaxnas.report.sheet import Sheet
from jaxnas.runtime import files

# Shown by the page itself, or of no use there.
_LEFT_OUT = {
  'metadata', 'style', 'clipPath', 'background', 'title', 'legend',
}  # fmt: skip
_COLOURS = {
  hexed: f'var(--{name})'
  for name, hexed in LIGHT.items()
  if name not in ('paper', 'accent')
}
_PRECISE = re.compile(r'\d+\.\d{3,}')


def save(figure: charts.Figure, folder: Path) -> tuple[list[Path], str]:
  """Writes NAME.png and NAME.svg; returns their paths, and SVG for a page."""
  png, svg = (folder / f'{figure.name}.{suffix}' for suffix in ('png', 'svg'))
  with sheet.style(figure.name):
    drawn = drawing.draw(figure)
    text = to_svg(drawn)
    sheet.write_png(drawn.figure, png)
  files.write_text(svg, text)
  return [png, svg], for_page(text, drawn, figure.title)


def to_svg(drawn: Sheet) -> str:
  """The drawing as SVG, the same bytes at each call."""
  out = io.StringIO()
  drawn.figure.savefig(out, format='svg', metadata={'Date': None})
  return out.getvalue()


def for_page(text: str, drawn: Sheet, title: str) -> str:
  """The body of an SVG file as an element of a page."""
  root = ElementTree.fromstring(text)
  for element in root.iter():
    element.tag = element.tag.rpartition('}')[2]
  _leave_out(root)
  used = {
    value.removeprefix('#')
    for element in root.iter()
    for key, value in element.items()
    if key.endswith('}href')
  }
  for element in root.iter():
    _attributes(element)
  for gid, texts in drawn.texts.items():
    (group,) = root.findall(f".//g[@id='{gid}']")
    _say(group, texts)
  for gid, cells in drawn.cells.items():
    (image,) = root.findall(f".//image[@id='{gid}']")
    image.set('data-cells', cells)
  for element in root.iter():
    if element.get('id') not in used:
      element.attrib.pop('id', None)
  root.attrib = {
    'viewBox': ' '.join(f'{length:g}' for length in drawn.body),
    'role': 'img',
    'aria-label': title,
  }
  return ElementTree.tostring(root, 'unicode')


def _leave_out(element: Element) -> None:
  for child in [*element]:
    _leave_out(child)
    empty = child.tag in ('g', 'defs') and not len(child)
    if empty or {child.tag, child.get('id')} & _LEFT_OUT:
      element.remove(child)


def _attributes(element: Element) -> None:
  """Names links as HTML does, shortens numbers, and frees colours and fonts."""
  element.tail = None
  if element.tag != 'text':
    element.text = None
  for key in [*element.keys()]:
    value = ' '.join(element.attrib.pop(key).split())
    if key in ('d', 'x', 'y', 'points'):
      value = _PRECISE.sub(lambda found: f'{float(found[0]):.2f}', value)
    if key == 'style':
      value = _style(value)
    if key != 'clip-path' and not value.startswith('rotate(-0 '):
      element.set(key.rpartition('}')[2], value)


def _style(value: str) -> str:
  """A style whose colours follow the page, and whose letters do."""
  out = []
  for one in value.split(';'):
    key, _, what = (part.strip() for part in one.partition(':'))
    if key == 'font-size':
      what = f'calc({what} * var(--zoom))'
    if key and key != 'font-family':
      out.append(f'{key}:{_COLOURS.get(what, what)}')
  return ';'.join(out)


def _say(group: Element, texts: Sequence[str]) -> None:
  """Tells each mark its text; a look that all share moves to their group."""
  defined = {id(inner) for defs in group.iter('defs') for inner in defs.iter()}
  marks = [
    element
    for element in group.iter()
    if element.tag in ('use', 'path') and id(element) not in defined
  ]
  for mark, text in zip(marks, texts, strict=True):
    mark.set('data-t', text)
  styles = {mark.get('style') for mark in marks}
  if len(styles) == 1 and None not in styles:
    for mark in marks:
      group.set('style', mark.attrib.pop('style'))
