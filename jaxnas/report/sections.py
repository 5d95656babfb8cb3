"""Says what runs show: sentences, tables and figures, in the page's order."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxnas.config import flatten
from jaxnas.report import charts, compared, diagnosed, listed, ranked, trained
from jaxnas.report.blocks import Section, Table
from jaxnas.report.folders import Run
from jaxnas.report.text import chosen, interval, number, percent
from jaxnas.runtime import words

Make = Callable[[Sequence[Run]], list[charts.Figure]]


def sections(runs: Sequence[Run]) -> list[Section]:
  """Returns everything that these runs can show, without empty sections."""
  every = [
    Section('Configuration', _guarded(configuration, runs)),
    _figures('Training', trained.curves, runs, 'metrics.jsonl'),
    _ranking(runs),
    _figures('Diagnosis', diagnosed.diagnosis, runs, 'diagnosis.json'),
    _figures(
      'Density', compared.densities, runs, 'density.npz', 'density_log.npz'
    ),
    _figures(
      'Sampling',
      lambda runs: [*ranked.sampling(runs), *ranked.effective(runs)],
      runs,
      'samples.npz',
      'updates.npz',
    ),
    _figures('Gradient distances', compared.distances, runs, 'density_log.npz'),
    _figures('Time and compute', trained.cost, runs, 'ledger.json'),
    Section(
      'How to reproduce',
      _guarded(listed.reproduction, runs),
      _lacking(runs, 'environment.json'),
    ),
  ]
  return [one for one in every if one.blocks or one.lacking]


def summary(runs: Sequence[Run]) -> list[str]:
  """Says in three lines what was done, how well it ranks, what it chooses."""
  return _guarded(_summary, runs)


def _images(result: Mapping[str, Any]) -> str:
  """Says on how many images of which part a result was ranked."""
  return words.counted(result['images'], f'{result["split"]} image')


def _summary(runs: Sequence[Run]) -> list[str]:
  first = runs[0]
  given, found = first.config, first.correlation
  done = f'{len(runs)} runs' if len(runs) > 1 else f'Seed {given.seed}'
  done += f' of {given.space} on {given.data.name}'
  lengths = {(run.config.warmup_epochs, run.config.epochs) for run in runs}
  if len(lengths) == 1:
    warm_up = words.counted(given.warmup_epochs, 'warm-up epoch')
    done += f': {warm_up} and {given.epochs} more'
  if found is None:
    return [f'{done}.', 'Nothing is ranked yet.', 'Nothing is chosen yet.']
  done += (
    f'; {words.counted(found["n"], "architecture")} ranked on {_images(found)}.'
  )
  ranked_runs = [run for run in runs if run.correlation is not None]
  choices = ', '.join(
    f'{chosen(run.correlation)} by {run.label}'
    for run in ranked_runs
    if run.correlation
  )
  if 'kendall' not in found:
    return [
      done,
      'No ground truth is known to compare it with.',
      f'Chosen: {choices}.',
    ]
  return [done, _taus(ranked_runs), _chosen(ranked_runs)]


def _taus(runs: Sequence[Run]) -> str:
  """Says how well runs rank, and whether intervals tell them apart."""
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
    f'{chosen(result)} by {run.label}, '
    f'{percent(result.get("best_arch_true_accuracy"))} alone'
    for run in runs
    for result in [run.correlation or {}]
  ]
  best = (runs[0].correlation or {}).get('best_true_accuracy')
  return f'Chosen: {"; ".join(parts)}. The best one reaches {percent(best)}.'


def configuration(runs: Sequence[Run]) -> list[Any]:
  """Lists the fields in which the configs differ."""
  flat = [flatten(run.config) for run in runs]
  if len(runs) == 1:
    return []
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
      *_guarded(listed.networks, runs),
      *ranked.ranks(runs),
      *trained.correlation(runs),
      *listed.architectures(runs),
    ]

  return Section(
    'Ranking',
    _guarded(everything, runs),
    _lacking(runs, 'correlation.json', 'predictions.npz', 'table.json'),
  )


def ranking_table(runs: Sequence[Run]) -> list[Table]:
  """Lists how well each run ranks, and the free baselines below."""
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
        chosen(result),
        percent(result.get('best_arch_true_accuracy')),
      ]
    )
    for step in result.get('combined', ()):
      rows.append(
        [
          f'{run.label} + {" + ".join(step["uses"])}',
          f'{number(step.get("kendall"))} {interval(step)}',
          number(step.get('spearman')),
          number(step.get('top_kendall')),
          '',
          chosen(step),
          percent(step.get('best_arch_true_accuracy')),
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
      f'{words.counted(result["n"], "architecture")}, '
      f'{_images(result)}, batch normalisation by {result["bn"]}. Intervals '
      'are over architectures. "Top tau" is tau among the best tenth; P@10 is '
      'the share of the ten ranked first that are among the ten best. "Alone" '
      'means trained without weight sharing.',
    )
  ]


def _figures(
  title: str, make: Make, runs: Sequence[Run], *files: str
) -> Section:
  return Section(title, _guarded(make, runs), _lacking(runs, *files))


def _guarded(
  make: Callable[[Sequence[Run]], Sequence[Any]], runs: Sequence[Run]
) -> list[Any]:
  """Returns what `make` does, or a sentence where a file cannot be shown."""
  try:
    return [*make(runs)]
  except (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
  ) as error:
    text = str(error).rstrip('.')
    return [f'A file holds something that cannot be shown: {text}.']


def _lacking(runs: Sequence[Run], *files: str) -> list[str]:
  """Says which runs lack which of these files, and why."""
  out = []
  for file in files:
    labels: dict[str, list[str]] = {}
    for run in runs:
      if file in run.lacks:
        labels.setdefault(run.lacks[file], []).append(run.label)
    out += [
      f'{file} of {" and ".join(who)} is not shown here: it {why.rstrip(".")}.'
      for why, who in labels.items()
    ]
  return out
