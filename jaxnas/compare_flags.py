"""What may be asked of `jaxnas.compare`: samplers by label, seeds, a budget."""

import dataclasses
import typing
from pathlib import Path
from typing import Any, Literal

from jaxnas import cli, names, runs, validation
from jaxnas.config import Config, Debias, Sampler, types

DEBIAS = '+debias'

# The file that says what is compared.
WHAT = 'compare.json'

Budget = Literal['paths', 'steps']
BUDGETS: tuple[Budget, ...] = typing.get_args(Budget)

# Where neither the flags nor what is resumed say it.
DEFAULTS = {'seeds': 3, 'budget': 'paths'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare(cli.Command):
  """Flags of the command."""

  samplers: str | None = None
  """What to compare, separated by commas: NAME or NAME:VARIANT of a sampler,
  +debias behind it to debias it as the config says."""
  seeds: int | None = None
  """Runs of each, from the config's seed on. None: 3, or as before."""
  budget: Budget | None = None
  """What all spend alike: path-gradients, or steps (sampler.budget). None:
  paths, or as before."""
  table: Path | None = None
  """Ground truth to correlate with. Default: the table shipped, if any."""


def to_compare(args: Compare, workdir: Path) -> dict[str, Any]:
  """Samplers, seeds and budget: of the flags, else of what is resumed.

  Raises ValueError where neither says what to compare, or where runs that are
  done had another budget.
  """
  file = workdir / WHAT
  kept = _kept(file) if args.resume and file.exists() else {}
  given = {
    'samplers': None if args.samplers is None else args.samplers.split(','),
    'seeds': args.seeds,
    'budget': args.budget,
  }
  what = DEFAULTS | kept | {k: v for k, v in given.items() if v is not None}
  if 'samplers' not in what:
    raise ValueError(
      'say what to compare: --samplers uniform,uniform+debias for instance.'
    )
  validation.at_least_one('--seeds', what['seeds'])
  if kept and kept['budget'] != what['budget']:
    raise ValueError(
      f'{workdir} compares under --budget {kept["budget"]}, not '
      f'{what["budget"]}: choose another --workdir.'
    )
  labels = what['samplers']
  if twice := {label for label in labels if labels.count(label) > 1}:
    raise ValueError(f'--samplers has {min(twice)!r} twice: name it once.')
  return what


def _kept(file: Path) -> dict[str, Any]:
  """What an earlier call compared; raises Damaged where it does not say."""
  kept = runs.read_json(file, {'samplers': list, 'seeds': int, 'budget': str})
  labels, budget = kept['samplers'], kept['budget']
  if budget not in BUDGETS:
    raise runs.Damaged(
      f'{file} compares under the budget {budget!r:.80}, none of '
      f'{", ".join(BUDGETS)}: choose another --workdir.'
    )
  if not labels or not all(isinstance(label, str) for label in labels):
    raise runs.Damaged(
      f'{file} compares {labels!r:.80}, no names of samplers: choose another '
      '--workdir.'
    )
  return kept


def configure(base: Config, label: str, budget: Budget) -> Config:
  """The experiment with this sampler, and those of its options that it has.

  Raises ValueError where the label does not say which.
  """
  from jaxnas import samplers

  name, plus, tail = label.partition('+')
  if plus and plus + tail != DEBIAS:
    raise ValueError(
      f'--samplers: {label!r} ends in {plus + tail!r}; only {DEBIAS} can '
      'stand behind a sampler.'
    )
  if plus and not base.debiases:
    raise ValueError(
      f'--samplers: {label} needs debias.effective_fraction or '
      'debias.temperature.'
    )
  name, _, variant = name.partition(':')
  names.check('--samplers', name, samplers.PROPOSALS)
  given: dict[str, Any] = dataclasses.asdict(base.sampler)
  given |= {'name': name, 'variant': variant or None, 'budget': budget}
  if name == 'fair':
    # It has as many as it needs.
    given['paths'] = Sampler.paths
  config = validation.without_unused(
    dataclasses.replace(base, sampler=types.make(Sampler, given, 'sampler.')),
    'sampler',
  )
  if variant and config.sampler.variant is None:
    raise ValueError(f'--samplers: {label!r}: {name} has no variants.')
  if name != 'fair' and base.density.estimator != 'prototypes':
    # Nobody else chooses among candidates.
    exact = dataclasses.replace(base.debias, candidates=Debias.candidates)
    config = dataclasses.replace(config, debias=exact)
  if not plus:
    config = config.undebiased()
  validation.validate(config)
  return config
