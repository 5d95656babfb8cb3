"""Elements of SVG, escaped."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

# Of every figure: its width, and what is free at its right.
WIDTH, RIGHT = 520.0, 16.0


def element(title: str, height: float, inside: Sequence[str]) -> str:
  return tag(
    'svg',
    '\n'.join(inside),
    viewBox=f'0 0 {WIDTH:g} {height:g}',
    role='img',
    aria_label=title,
  )


def tag(name: str, inside: str = '', **attributes: Any) -> str:
  """`inside` is markup; the values of attributes are escaped here."""
  words = ''.join(
    f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
    for key, value in attributes.items()
    if value is not None
  )
  return f'<{name}{words}>{inside}</{name}>'


def _value(value: Any) -> str:
  if isinstance(value, float | np.floating):
    return f'{value:.2f}'.rstrip('0').rstrip('.')
  return html.escape(str(value))


def text(x: float, y: float, words: str, class_: str, **more: Any) -> str:
  return tag('text', html.escape(words), x=x, y=y, class_=class_, **more)
