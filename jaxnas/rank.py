"""Rank architectures under a trained supernet and hold them to the truth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from rich.console import Console
from rich.table import Table as RichTable

from jaxnas import correlation, tables
from jaxnas.spaces import Space


def correlate(
  space: Space,
  archs_AxE: Int[np.ndarray, 'A E'],
  accuracy_A: Float[np.ndarray, ' A'],
  table: tables.Table | None,
  rng: np.random.Generator,
) -> dict[str, Any]:
  """How well supernet accuracies order architectures, ready for JSON.

  Without a table only the architecture chosen is known. Where strings of the
  space are the same network, `canonical` repeats the figures with one string
  for each.
  """
  best = int(np.argmax(accuracy_A))
  out: dict[str, Any] = {
    'n': len(archs_AxE),
    'best_arch': space.format(archs_AxE[best]),
    'best_arch_accuracy': float(accuracy_A[best]),
  }
  if table is None:
    return out
  truth_A = table.accuracy(archs_AxE)
  out |= {
    'best_arch_true_accuracy': float(truth_A[best]),
    'best_true_accuracy': float(truth_A.max()),
    **correlation.summarize(
      accuracy_A, truth_A, space.baselines(archs_AxE), rng
    ),
  }
  distinct_A = (space.canonical(archs_AxE) == archs_AxE).all(axis=1)
  if 2 <= distinct_A.sum() < len(archs_AxE):
    out['canonical'] = {
      'n': int(distinct_A.sum()),
      'kendall': correlation.kendall(
        accuracy_A[distinct_A], truth_A[distinct_A]
      ),
      'spearman': correlation.spearman(
        accuracy_A[distinct_A], truth_A[distinct_A]
      ),
    }
  return out


def show(results: Mapping[str, Mapping[str, Any]]) -> None:
  """Prints results side by side, with the free baselines below them."""
  first = next(iter(results.values()))
  known = 'kendall' in first
  out = RichTable(title=f'ranking of {first["n"]} architectures')
  out.add_column('', no_wrap=True)
  for column in ('Kendall tau', 'Spearman rho', 'top tau') if known else ():
    out.add_column(column, justify='right', no_wrap=True)
  out.add_column('architecture chosen', no_wrap=True)
  out.add_column('its accuracy', justify='right')
  for name, result in results.items():
    if known:
      out.add_row(
        name,
        _interval(result['kendall'], result['kendall_interval']),
        _interval(result['spearman'], result['spearman_interval']),
        _number(result['top_kendall']),
        result['best_arch'],
        f'{result["best_arch_true_accuracy"]:.2%}',
      )
    else:
      out.add_row(
        name, result['best_arch'], f'{result["best_arch_accuracy"]:.2%}'
      )
  if known:
    out.add_section()
    for name, values in first['baselines'].items():
      out.add_row(
        f'{name} alone',
        _number(values['kendall']),
        _number(values['spearman']),
        '',
        '',
        '',
      )
    out.caption = (
      f'95% intervals over architectures; best there is '
      f'{first["best_true_accuracy"]:.2%}'
    )
  else:
    out.caption = 'no ground truth: accuracy of the supernet; --table FILE'
  Console().print(out)


def _number(value: float | None) -> str:
  return '-' if value is None else f'{value:.3f}'


def _interval(value: float | None, interval: Any) -> str:
  if value is None or interval is None:
    return _number(value)
  return f'{value:.3f} [{interval[0]:.2f}, {interval[1]:.2f}]'
