"""Writes numbers as pages and tables show them."""

from collections.abc import Mapping
from typing import Any


def number(value: float | None, digits: int = 3) -> str:
  """Writes a number; a dash where it is not defined.

  >>> number(0.5), number(None)
  ('0.500', '-')
  """
  return '-' if value is None else f'{value:.{digits}f}'


def aligned(value: float, digits: int = 4) -> str:
  """Writes a number with so many digits, zeros at its end among them.

  >>> aligned(1.13), aligned(1.97459, 6), aligned(1234.0)
  ('1.130', '1.97459', '1234')
  """
  return f'{value:#.{digits}g}'.removesuffix('.')


def percent(value: float | None) -> str:
  """Writes a fraction as a percentage.

  >>> percent(0.5)
  '50.00%'
  """
  return '-' if value is None else f'{value:.2%}'


def chosen(result: Mapping[str, Any]) -> str:
  """Names the architecture that a ranking chose, and how many tie with it.

  >>> chosen({'best_arch': '0000', 'tied': 6561})
  '0000 (6,561 tie)'
  """
  tied = result.get('tied', 1)
  more = f' ({tied:,} tie)' if tied > 1 else ''
  return f'{result["best_arch"]}{more}'


def interval(result: Mapping[str, Any]) -> str:
  """Writes the 95% interval of Kendall's tau; '' where there is none.

  >>> interval({'kendall_interval': [0.1, 0.3]})
  '[0.10, 0.30]'
  """
  found = result.get('kendall_interval')
  return f'[{found[0]:.2f}, {found[1]:.2f}]' if found else ''
