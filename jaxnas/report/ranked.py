"""Makes the figures of rankings, and of how often each arch was trained."""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats
from jaxtyping import Float, Int

from jaxnas.experiment import updates
from jaxnas.report import charts, palette
from jaxnas.report.folders import Run

# Points of a line over all architectures.
MOST_POINTS = 400

# Architectures with a ring: those that are best in truth.
BEST = 10


def ranks(runs: Sequence[Run]) -> list[charts.Figure]:
  """Draws supernet rank against true rank (the paper's figure 1), by run."""
  out: list[charts.Figure] = []
  for colour, run in enumerate(runs):
    if run.predictions is None or run.truth is None:
      continue
    archs_AxE = run.predictions['archs_AxE']
    accuracy_A = run.predictions['accuracy_A']
    truth_A = run.truth.accuracy(archs_AxE)
    out.append(
      charts.Chart(
        name=f'ranks-{slug(run.label)}',
        title=f'Rank against rank: {run.label}',
        xlabel='rank alone',
        ylabel='rank in the supernet',
        marks=[
          charts.Dots(
            label=run.label,
            colour=colour,
            x_N=rank_of(truth_A),
            y_N=rank_of(accuracy_A),
            texts=texts(run, archs_AxE, accuracy_A, truth_A),
            ringed_M=np.argsort(-truth_A, kind='stable')[:BEST],
          )
        ],
        diagonal=True,
        ranks=True,
        note=_figures(run)
        + f'Rings mark the {min(BEST, len(truth_A))} best in truth; the best '
        'rank is at the top right.',
      )
    )
  return out


def rank_of(values_A: Float[np.ndarray, ' A']) -> Float[np.ndarray, ' A']:
  """Returns ranks from 1, the largest; ties share their mean."""
  return np.asarray(scipy.stats.rankdata(-values_A, 'average'), float)


def texts(
  run: Run,
  archs_AxE: Int[np.ndarray, 'A E'],
  accuracy_A: Float[np.ndarray, ' A'] | None = None,
  truth_A: Float[np.ndarray, ' A'] | None = None,
  **more_A: Float[np.ndarray, ' A'] | Int[np.ndarray, ' A'],
) -> list[str]:
  """Says what is known about each architecture, a line for each fact."""
  space = run.space
  lines = [[space.format(arch_E)] for arch_E in archs_AxE]

  def add(form: str, values_A) -> None:
    for line, value in zip(lines, values_A, strict=True):
      line.append(form.format(value))

  if accuracy_A is not None:
    add('supernet {:.2%}', accuracy_A)
  if truth_A is not None:
    add('alone {:.2%}', truth_A)
  for name, values_A in more_A.items():
    add(f'{name} {{:.4g}}', values_A)
  costs = space.costs(archs_AxE)
  add('{:,} parameters', costs.params_A)
  add('{:,} multiply-adds', costs.macs_A)
  return ['\n'.join(line) for line in lines]


def columns(run: Run) -> dict[str, list[str]]:
  """Returns what is known about each ranked architecture, by head."""
  assert run.predictions is not None
  archs_AxE = run.predictions['archs_AxE']
  out = {
    'architecture': [run.space.format(arch_E) for arch_E in archs_AxE],
    'in the supernet': [f'{a:.2%}' for a in run.predictions['accuracy_A']],
  }
  if run.truth is not None:
    out['alone'] = _shown('{:.2%}', run.truth.known(archs_AxE))
  if not run.space.enumerable:
    return out
  if run.density is not None:

    def known(value_K: np.ndarray) -> np.ndarray:
      assert run.density is not None
      return run.space.looked_up(run.density['archs_AxE'], value_K, archs_AxE)

    out['density'] = _shown('{:.4f}', known(run.density['alpha_A']))
    if (found := applied(run)) is not None:
      out['probability'] = _shown('{:.5f}', known(found[0]))
  if run.samples is not None and 'samples_A' in run.samples:
    samples_A = run.samples['samples_A'][run.space.index(archs_AxE)]
    out['times trained'] = _shown('{:.0f}', samples_A)
  costs = run.space.costs(archs_AxE)
  out['parameters'] = _shown('{:,.0f}', costs.params_A)
  out['multiply-adds'] = _shown('{:,.0f}', costs.macs_A)
  return out


def _shown(form: str, values_A: np.ndarray) -> list[str]:
  return [form.format(v) if np.isfinite(v) else '-' for v in values_A.tolist()]


def sampling(runs: Sequence[Run]) -> list[charts.Figure]:
  """Times that each arch was trained, against those that are expected."""
  marks = []
  for colour, run in enumerate(runs):
    expected_A = expected(run)
    if expected_A is None or run.samples is None:
      continue
    marks.append(
      charts.Dots(
        label=run.label,
        colour=colour,
        x_N=expected_A,
        y_N=run.samples['samples_A'].astype(float),
        texts=texts(
          run,
          run.samples['archs_AxE'],
          expected=expected_A,
          trained=run.samples['samples_A'],
        ),
      )
    )
  if not marks:
    return []
  return [
    charts.Chart(
      name='sampling',
      title='How often each architecture was trained',
      xlabel='times expected from its probability',
      ylabel='times trained',
      marks=marks,
      diagonal=True,
      note=(
        'Probabilities are uniform in the warm-up; after it, the density and '
        'the temperature of the run give them.'
      ),
    )
  ]


def effective(runs: Sequence[Run]) -> list[charts.Figure]:
  """Draws the effective updates under each rule, run by run."""
  return [
    updates_chart(
      {
        str(rule).replace('_', '-'): update_A
        for rule, update_A in zip(
          run.updates['rule_R'], run.updates['update_RxA'], strict=True
        )
      },
      name=f'updates-{slug(run.label)}',
      colours=palette.RULES,
      title=f'Effective updates: {run.label}',
      note='How far a step moves along the gradient of an architecture on '
      'average, when debiasing began. All rules leave the same effective '
      'number of architectures.',
    )
    for run in runs
    if run.updates is not None
  ]


def updates_chart(
  of_rules: Mapping[str, Float[np.ndarray, ' A']],
  *,
  name: str,
  title: str,
  note: str = '',
  colours: Sequence[int | str] = range(8),
) -> charts.Chart:
  """Describes effective updates by rule, from the worst-off arch on."""
  lines = []
  for colour, (rule, update_A) in zip(colours, of_rules.items(), strict=False):
    count = len(update_A)
    shown_M = np.unique(np.linspace(0, count - 1, MOST_POINTS).astype(int))
    lines.append(
      charts.Line(
        label=rule,
        colour=colour,
        x_N=(shown_M + 1) / count * 100,
        y_N=np.sort(update_A)[shown_M],
      )
    )
  return charts.Chart(
    name=name,
    title=title,
    xlabel='architectures, from the worst-off on, %',
    ylabel='mean similarity to what is drawn',
    marks=lines,
    note=note,
  )


def expected(run: Run) -> Float[np.ndarray, ' A'] | None:
  """Returns how often each architecture of the space should be trained.

  None where probabilities change along the run, or are not known.
  """
  given = run.config
  known = (
    given.sampler.name == 'uniform' and given.density.refresh_epochs is None
  )
  if not known or run.samples is None or 'samples_A' not in run.samples:
    return None
  total, count = run.samples['samples_A'].sum(), run.space.size
  p_A = np.full(count, 1 / count)
  if given.debiases:
    if (found := applied(run)) is None:
      return None
    p_A, _ = found
  warmup = given.warmup_epochs / max(given.total_epochs, 1)
  return total * (warmup / count + (1 - warmup) * p_A)


def temperature(run: Run) -> float | None:
  """Returns the temperature that a run debiased with, given or solved for.

  None where it is undebiased, or where it changes along the run.
  """
  found = applied(run)
  return None if found is None else found[1]


def applied(run: Run) -> tuple[Float[np.ndarray, ' A'], float] | None:
  """Returns P of all architectures of its density, and the temperature.

  None where it is undebiased, or where they change along the run.
  """
  given = run.config
  if (
    run.density is None or not given.debiases or given.sampler.name != 'uniform'
  ):
    return None
  return updates.applied(given, run.density['alpha_A'], run.updates)


def slug(label: str) -> str:
  """Turns a label into a part of a file's name."""
  return ''.join(c if c.isascii() and c.isalnum() else '-' for c in label)


def _figures(run: Run) -> str:
  found = run.correlation or {}
  parts = [
    f'{name} {found[key]:.3f}'
    for name, key in (('tau', 'kendall'), ('top tau', 'top_kendall'))
    if found.get(key) is not None
  ]
  return f'{", ".join(parts)}. '.capitalize() if parts else ''
