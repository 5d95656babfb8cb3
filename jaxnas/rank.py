"""Rank a trained supernet's architectures anew, and hold them to the truth.

On other images, more of them, or with batch normalisation another way; for
instance `python -m jaxnas.rank --run RUN --ranking.split test --ranking.bn
recalibrate`.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from jaxnas import cli, correlation, locks, runs, tables, train, trained
from jaxnas.spaces import Space

if TYPE_CHECKING:
  from jaxnas.build import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rank(trained.Command):
  """Flags of the command; what is not given is as in the run."""

  table: Path | None = None
  """Ground truth. Default: what the run was held to."""
  ranking: trained.Ranking


def main(argv: Sequence[str] | None = None) -> int:
  args, config = trained.parse(
    lambda run, config: Rank(run=run, ranking=trained.ranking_of(config)),
    argv,
    __doc__,
  )
  how = f'rank-{args.ranking.split}-{args.ranking.bn}'
  workdir = args.workdir or args.run / how
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas import ranking
  from jaxnas.training.preemption import Preemption

  cli.prepare_process()
  with cli.usage_errors():
    experiment, state = trained.load(args.run, config, args.ranking)
    table = train.find_table(config, args.run, args.table)
    runs.make_workdir(workdir)
    locks.keep(workdir)
  stopped = 'stopped, nothing lost: the same command goes on'
  with cli.outcome(workdir, stopped), Preemption() as preemption:
    ranking.predict(
      experiment,
      state,
      experiment.ranking_archs_AxE,
      workdir,
      preemption.check,
    )
    runs.write_json(
      workdir / 'environment.json',
      runs.environment(run=str(args.run), step=int(state.step)),
    )
    show({'ranking': summarize(experiment, workdir, table)})
  return 0


def summarize(
  experiment: 'Experiment',
  workdir: Path,
  table: tables.Table | None,
  **facts: Any,
) -> dict[str, Any]:
  """Writes correlation.json, from predictions.npz, and returns what it holds.

  `facts` are added to it.
  """
  from jaxnas import ranking, streams

  predicted = ranking.read(workdir / 'predictions.npz', experiment.space)
  summary = {
    **ranking.how(experiment),
    'skipped_images': predicted.skipped_images,
    **facts,
    **correlate(
      experiment.space,
      predicted.archs_AxE,
      predicted.accuracy_A,
      table,
      streams.rng(experiment.config.seed, 'bootstrap'),
    ),
  }
  runs.write_json(workdir / 'correlation.json', summary)
  return summary


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
  _, first_D = np.unique(space.canonical(archs_AxE), axis=0, return_index=True)
  if 2 <= len(first_D) < len(archs_AxE):
    distinct = accuracy_A[first_D], truth_A[first_D]
    out['canonical'] = {
      'n': len(first_D),
      'kendall': correlation.kendall(*distinct),
      'spearman': correlation.spearman(*distinct),
    }
  return out


def show(results: Mapping[str, Mapping[str, Any]]) -> None:
  """Prints results side by side, with the free baselines below them."""
  first = next(iter(results.values()))
  known = 'kendall' in first
  out = RichTable(
    title=f'ranking of {first["n"]} architectures', box=box.SIMPLE_HEAD
  )
  out.add_column('')
  if known:
    out.add_column('Kendall tau [95%]', justify='right')
    out.add_column('Spearman', justify='right')
    out.add_column('top tau', justify='right')
  # MobileNet's names are longer than a line.
  out.add_column('chosen', overflow='fold')
  out.add_column('accuracy', justify='right')
  for name, result in results.items():
    figures, accuracy = [], result['best_arch_accuracy']
    if known:
      low_high = result['kendall_interval'] or (None, None)
      figures = [
        f'{_number(result["kendall"])} '
        f'[{", ".join(_number(value, 2) for value in low_high)}]',
        _number(result['spearman']),
        _number(result['top_kendall']),
      ]
      accuracy = result['best_arch_true_accuracy']
    out.add_row(name, *figures, result['best_arch'], f'{accuracy:.2%}')
  if known:
    out.add_section()
    for name, values in first['baselines'].items():
      figures = (_number(values[key]) for key in ('kendall', 'spearman'))
      out.add_row(f'{name} alone', *figures)
    out.caption = (
      'interval over architectures; accuracy: of the chosen one alone; '
      f'the best there is {first["best_true_accuracy"]:.2%}'
    )
  else:
    out.caption = 'no ground truth (--table FILE): accuracy of the supernet'
  Console().print(out)


def _number(value: float | None, digits: int = 3) -> str:
  return '-' if value is None else f'{value:.{digits}f}'


if __name__ == '__main__':
  sys.exit(main())
