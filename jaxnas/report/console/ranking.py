"""Prints rankings side by side, with the free baselines."""

from collections.abc import Mapping
from typing import Any

from jaxnas.report.text import chosen, interval, number, percent
from jaxnas.runtime import table, words


def show(results: Mapping[str, Mapping[str, Any]]) -> None:
  """Prints results side by side, with the free baselines below them."""
  first = next(iter(results.values()))
  known = 'kendall' in first
  taus = ['Kendall tau [95%]', 'Spearman', 'top tau'] if known else []
  out = table.table(
    f'ranking of {words.counted(first["n"], "architecture")}',
    ['', *taus, 'chosen', 'accuracy'],
    words=['chosen'],
  )
  for name, result in results.items():
    accuracy = result[
      'best_arch_true_accuracy' if known else 'best_arch_accuracy'
    ]
    add_row(out, name, result, accuracy)
    for step in result.get('combined', ()):
      accuracy = step.get('best_arch_true_accuracy')
      add_row(out, f'+ {step["uses"][-1]}', step, accuracy)
  if known:
    out.add_section()
    for name, values in first['baselines'].items():
      figures = (number(values[key]) for key in ('kendall', 'spearman'))
      out.add_row(f'{name} alone', *figures)
    over = 'architectures'
    if any('members' in result for result in results.values()):
      over += ', and that of a mean also over its members'
    out.caption = (
      f'The interval is over {over}. Accuracy is that of the chosen '
      'architecture, trained alone, or the mean of those that tie; the best '
      f'one reaches {first["best_true_accuracy"]:.2%}.'
    )
  else:
    out.caption = (
      'Accuracy is that of the supernet: there is no ground truth '
      '(--table FILE).'
    )
  out.caption += ''.join(notes(*item) for item in results.items())
  table.show(out)


def add_row(
  out: Any, name: str, result: Mapping[str, Any], accuracy: float | None
) -> None:
  """Adds a row for a ranking, or for one after a step of `ranking.combine`."""
  figures = []
  if 'kendall' in result:
    figures = [
      f'{number(result["kendall"])} {interval(result) or "[-, -]"}',
      number(result['spearman']),
      number(result['top_kendall']),
    ]
  out.add_row(name, *figures, chosen(result), percent(accuracy))


def notes(name: str, result: Mapping[str, Any]) -> str:
  """Says what the steps of `ranking.combine` found, and what they changed."""
  parts = []
  for step in result.get('combined', ()):
    found = [step['note']] if step['note'] else []
    if gain := step.get('gain_interval'):
      found.append(f'[{gain[0]:+.2f}, {gain[1]:+.2f}] in tau')
    if found:
      parts.append(f'{step["uses"][-1]}: {"; ".join(found)}.')
  return f' {name}: {" ".join(parts)}' if parts else ''
