"""What a page says, in its order: sentences, tables and figures of runs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxnas.config import flatten, to_json
from jaxnas.report import charts, compared, ranked, trained
from jaxnas.report.folders import Run

Make = Callable[[Sequence[Run]], list[charts.Figure]]


@dataclasses.dataclass(frozen=True)
class Table:
  """Cells of text; the first of a row is its head."""

  head: Sequence[str]
  rows: Sequence[Sequence[str]]
  note: str = ''


@dataclasses.dataclass(frozen=True)
class Code:
  """Text as it stands, folded away where it is `folded`."""

  title: str
  text: str
  folded: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of the page."""

  title: str
  blocks: Sequence[str | Table | Code | charts.Figure]
  lacking: Sequence[str] = ()
  """What is left out, and why."""


def sections(runs: Sequence[Run]) -> list[Section]:
  """Everything that these runs can show."""
  return [
    Section('Configuration', _guarded(configuration, runs)),
    _figures('Training', trained.curves, runs, 'metrics.jsonl'),
    _ranking(runs),
    _figures(
      'Density', compared.densities, runs, 'density.npz', 'density_log.npz'
    ),
    _figures('Sampling', ranked.sampling, runs, 'samples.npz', 'density.npz'),
    _figures('Gradient distances', compared.distances, runs, 'density_log.npz'),
    _figures('Time and compute', trained.spent, runs, 'ledger.json'),
    Section(
      'How to reproduce',
      _guarded(reproduction, runs),
      _lacking(runs, 'environment.json'),
    ),
  ]


def summary(runs: Sequence[Run]) -> list[str]:
  """Three lines: what was done, how well it ranks, and what it chooses."""
  return _guarded(_summary, runs)


def _summary(runs: Sequence[Run]) -> list[str]:
  first = runs[0]
  given, found = first.config, first.correlation
  done = f'{len(runs)} runs' if len(runs) > 1 else f'Seed {given.seed}'
  done += f' of {given.space} on {given.data.name}'
  lengths = {(run.config.warmup_epochs, run.config.epochs) for run in runs}
  if len(lengths) == 1:
    done += f': {given.warmup_epochs} warm-up epochs and {given.epochs} more'
  if found is None:
    return [f'{done}.', 'Nothing is ranked yet.', 'Nothing is chosen yet.']
  done += (
    f'; {found["n"]:,} architectures ranked on {found["images"]:,} '
    f'{found["split"]} images.'
  )
  ranked_runs = [run for run in runs if run.correlation is not None]
  chosen = ', '.join(
    f'{run.correlation["best_arch"]} by {run.label}'
    for run in ranked_runs
    if run.correlation
  )
  if 'kendall' not in found:
    return [
      done,
      'There is no ground truth to hold it to.',
      f'Chosen: {chosen}.',
    ]
  return [done, _taus(ranked_runs), _chosen(ranked_runs)]


def _taus(runs: Sequence[Run]) -> str:
  """How well they rank, and whether that tells them apart."""
  found = [(run, run.correlation or {}) for run in runs]
  text = "Kendall's tau " + ', '.join(
    f'{number(result.get("kendall"))} {interval(result)} ({run.label})'
    for run, result in found
  )
  ranges = [
    result['kendall_interval']
    for _, result in found
    if result.get('kendall_interval')
  ]
  if len(ranges) > 1:
    apart = max(low for low, _ in ranges) > min(high for _, high in ranges)
    text += '; not all intervals overlap' if apart else '; intervals overlap'
  free = trained.best_baseline(runs[0])
  if free is not None:
    text += f'. Without any training, {free[0]} alone reach {free[1]:.3f}'
  return f'{text}.'


def _chosen(runs: Sequence[Run]) -> str:
  parts = [
    f'{result["best_arch"]} by {run.label}, '
    f'{percent(result.get("best_arch_true_accuracy"))} alone'
    for run in runs
    for result in [run.correlation or {}]
  ]
  best = (runs[0].correlation or {}).get('best_true_accuracy')
  return f'Chosen: {"; ".join(parts)}. The best there is has {percent(best)}.'


def configuration(runs: Sequence[Run]) -> list[Any]:
  """What differs between the runs."""
  flat = [flatten(run.config) for run in runs]
  if len(runs) == 1:
    return ['One run: nothing to compare; its config stands at the end.']
  differing = [
    name for name in flat[0] if any(one[name] != flat[0][name] for one in flat)
  ]
  if not differing:
    return ['The runs have the same config.']
  alike = len(flat[0]) - len(differing)
  return [
    Table(
      ['', *(run.label for run in runs)],
      [[name, *(str(one[name]) for one in flat)] for name in differing],
      f'The other {alike} fields are alike.',
    )
  ]


def _ranking(runs: Sequence[Run]) -> Section:
  def everything(runs: Sequence[Run]) -> list[Any]:
    return [
      *_guarded(ranking_table, runs),
      *ranked.ranks(runs),
      *trained.correlation(runs),
    ]

  lacking = _lacking(runs, 'correlation.json', 'predictions.npz', 'table.json')
  if not any('kendall' in row for run in runs for row in run.metrics):
    lacking.append(
      'Correlation along training: no run wrote it (ranking.every_epochs).'
    )
  return Section('Ranking', _guarded(everything, runs), lacking)


def ranking_table(runs: Sequence[Run]) -> list[Table]:
  """How well each run ranks, and the free baselines below."""
  found = [run for run in runs if run.correlation is not None]
  if not found:
    return []
  rows = []
  for run in found:
    result = run.correlation or {}
    rows.append(
      [
        run.label,
        f'{number(result.get("kendall"))} {interval(result)}',
        number(result.get('spearman')),
        number(result.get('top_kendall')),
        number(result.get('precision_at', {}).get('10'), 2),
        str(result['best_arch']),
        percent(result.get('best_arch_true_accuracy')),
      ]
    )
  for name, values in (found[0].correlation or {}).get('baselines', {}).items():
    tau_rho = [number(values[key]) for key in ('kendall', 'spearman')]
    name = trained.BASELINES.get(name, name)
    rows.append([f'{name} alone', *tau_rho, '', '', '', ''])
  result = found[0].correlation or {}
  head = ['', 'Kendall tau [95%]', 'Spearman', 'top tau', 'P@10', 'chosen']
  return [
    Table(
      [*head, 'accuracy alone'],
      rows,
      f'{result["n"]:,} architectures, {result["images"]:,} {result["split"]} '
      f'images, batch normalisation by {result["bn"]}. Intervals are over '
      'architectures; top tau: among the best tenth; P@10: share of the ten '
      'ranked first that are among the ten best.',
    )
  ]


def reproduction(runs: Sequence[Run]) -> list[Any]:
  """Commands, machines, versions and configs."""
  rows, commands = [], {}
  for run in runs:
    there = run.environment or {}
    commands.setdefault(str(there.get('command', 'unknown')), []).append(
      run.label
    )
    rows.append(
      [
        run.label,
        str(there.get('platform', '-')),
        str(there.get('cpus', '-')),
        str(there.get('precision', '-')),
        str(there.get('python', '-')),
      ]
    )
  versions = {
    run.label: (run.environment or {}).get('versions', {}) for run in runs
  }
  packages = dict.fromkeys(name for one in versions.values() for name in one)
  return [
    *(Code(', '.join(labels), command) for command, labels in commands.items()),
    Table(['', 'platform', 'CPUs', 'precision', 'Python'], rows),
    Table(
      ['', *packages],
      [
        [label, *(str(one.get(name, '-')) for name in packages)]
        for label, one in versions.items()
      ],
    ),
    *(
      Code(f'{run.label}/config.json', to_json(run.config), folded=True)
      for run in runs
    ),
  ]


def number(value: float | None, digits: int = 3) -> str:
  return '-' if value is None else f'{value:.{digits}f}'


def percent(value: float | None) -> str:
  return '-' if value is None else f'{value:.2%}'


def interval(result: Mapping[str, Any]) -> str:
  """Of Kendall's tau."""
  found = result.get('kendall_interval')
  return f'[{found[0]:.2f}, {found[1]:.2f}]' if found else ''


def _figures(
  title: str, make: Make, runs: Sequence[Run], *files: str
) -> Section:
  return Section(title, _guarded(make, runs), _lacking(runs, *files))


def _guarded(
  make: Callable[[Sequence[Run]], Sequence[Any]], runs: Sequence[Run]
) -> list[Any]:
  """What is made, or a sentence where files hold what nothing can show."""
  try:
    return [*make(runs)]
  except (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
  ) as error:
    return [f'Left out: a file holds what cannot be shown ({error}).']


def _lacking(runs: Sequence[Run], *files: str) -> list[str]:
  """Which of these files which runs lack."""
  out = []
  for file in files:
    labels: dict[str, list[str]] = {}
    for run in runs:
      if file in run.lacks:
        labels.setdefault(run.lacks[file], []).append(run.label)
    out += [f'{", ".join(who)}: {file} {why}.' for why, who in labels.items()]
  return out
