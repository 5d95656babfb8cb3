"""Train with several samplers under one budget, and hold them side by side.

For instance `python -m jaxnas.compare --config quickstart.py --samplers
uniform,uniform+debias,tree:iterative,tree:iterative+debias`.
"""

import dataclasses
import gc
import sys
import traceback
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxnas import (
  cli,
  compare_tables,
  names,
  runs,
  tables,
  train,
  validation,
  warm_up,
)
from jaxnas.config import Config, Debias, Sampler, types

if TYPE_CHECKING:
  from jaxnas import data
  from jaxnas.training.preemption import Preemption

DEBIAS = '+debias'

# The file that says what is compared.
WHAT = 'compare.json'

Budget = Literal['paths', 'steps']
BUDGETS: tuple[Budget, ...] = typing.get_args(Budget)

# What is shown of a result.
RESULT = {'n': int, 'best_arch_accuracy': (float, int), 'compute': dict}

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


def main(argv: Sequence[str] | None = None) -> int:
  args = cli.parse(Compare, argv)
  workdir = args.workdir or runs.new_workdir('compare')
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas import build
  from jaxnas.training.preemption import Preemption

  cli.prepare_process()
  with cli.usage_errors():
    what = to_compare(args, workdir)
    base = dataclasses.replace(args.experiment, debias=_alone(args.experiment))
    loaded = build.images(base)
    configs = {
      label: checked(configure(base, label, what['budget']), label, loaded)
      for label in what['samplers']
    }
    table = train.find_table(base, workdir, args.table)
    check_table(workdir, base, table)
    runs.open_run(workdir, args.experiment, resume=args.resume)
    runs.write_json(workdir / WHAT, what)
    if table is not None:
      tables.dump(table, workdir / 'table.json', data=base.data.name)
  seeds = range(base.seed, base.seed + what['seeds'])
  with cli.outcome(workdir), Preemption() as preemption:
    results = compare(configs, seeds, workdir, table, loaded, preemption)
    runs.write_json(workdir / 'results.json', results)
  compare_tables.show(results)
  compare_tables.draw(results, workdir / 'compare.png')
  failed = [
    f'{label}, seed {result["seed"]}: {result["error"]}'
    for label, of_seeds in results.items()
    for result in of_seeds
    if 'error' in result
  ]
  for line in failed:
    print(f'error: {line}', file=sys.stderr)
  if failed:
    print(
      f'try {"them" if len(failed) > 1 else "it"} again with --workdir '
      f'{workdir} --resume',
      file=sys.stderr,
    )
  return 1 if failed else 0


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


def check_table(
  workdir: Path, config: Config, table: tables.Table | None
) -> None:
  """Raises ValueError where runs that are done were held to another truth."""
  if table is None:
    return
  if not (workdir / 'table.json').exists():
    if done := sorted(workdir.glob('*/seed_*/correlation.json')):
      raise ValueError(
        f'{done[0].parent} was held to no table: choose another --workdir, or '
        'leave out --table.'
      )
    return
  before = train.find_table(config, workdir, None)
  if before and not np.array_equal(before.accuracy_A, table.accuracy_A):
    raise ValueError(
      f'{workdir} is held to another table: resume it without --table, or '
      'choose another --workdir.'
    )


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


def checked(config: Config, label: str, loaded: 'data.DataSet') -> Config:
  """The config, without rewards that its sampler does not read.

  Raises ValueError where the sampler cannot serve the experiment.
  """
  from jaxnas import build

  every_step = dataclasses.replace(config.sampler, reward_every=1)
  try:
    plain = dataclasses.replace(config, sampler=every_step)
    rewards = build.experiment(plain, loaded).sampler.rewards
  except ValueError as error:
    raise ValueError(f'{label}: {error}') from error
  return config if rewards else plain


def compare(
  configs: dict[str, Config],
  seeds: Sequence[int],
  workdir: Path,
  table: tables.Table | None,
  loaded: 'data.DataSet',
  preemption: 'Preemption',
) -> dict[str, list[dict[str, Any]]]:
  """What correlation.json holds of every run, by label, a result a seed.

  Runs that are done are read, those begun go on. A run that fails does not
  lose the others: its result is its 'error', and its trace is in error.txt.

  Args:
    configs: by label.
    seeds: of each.
    workdir: gets a folder a label, and a run a seed in it.
    table: ground truth, where there is one.
    loaded: the images of all of them.
    preemption: an active one; signals end the comparison by Stopped.
  """
  results: dict[str, list[dict[str, Any]]] = {label: [] for label in configs}
  for seed in seeds:
    for label, config in configs.items():
      run = run_of(workdir, label, seed)
      done = run / 'correlation.json'
      if done.exists():
        result = runs.read_json(done, RESULT)
      else:
        print(f'{label}, seed {seed}')
        result = attempt(
          dataclasses.replace(config, seed=seed),
          run,
          table,
          loaded,
          preemption,
          warmup_from=run_of(workdir, label.removesuffix(DEBIAS), seed),
        )
      results[label].append({'seed': seed, **result})
  return results


def attempt(
  config: Config,
  run: Path,
  table: tables.Table | None,
  loaded: 'data.DataSet',
  preemption: 'Preemption',
  *,
  warmup_from: Path,
) -> dict[str, Any]:
  """The result of one run, or the error that ended it.

  Its warm-up is that of `warmup_from`, where that is the same.
  """
  import jax

  from jaxnas import build
  from jaxnas.training.preemption import Stopped

  # The programs of other runs are of no use to this one.
  jax.clear_caches()
  gc.collect()
  run.mkdir(parents=True, exist_ok=True)
  (run / 'error.txt').unlink(missing_ok=True)
  try:
    experiment = build.experiment(config, loaded)
    runs.open_run(run, config, resume=True)
    return train.train(
      experiment,
      run,
      table,
      warmup_from=warm_up.same(warmup_from, config, experiment.warmup_steps),
      preemption=preemption,
    )
  except Stopped:
    raise
  except Exception as error:
    # Whatever ended this run: the others do not depend on it.
    runs.write_text(run / 'error.txt', traceback.format_exc())
    first = next(iter(str(error).splitlines()), '')
    print(f'error: {type(error).__name__}: {first}', file=sys.stderr)
    return {'error': f'{type(error).__name__}: {first}'}


def run_of(workdir: Path, label: str, seed: int) -> Path:
  """The folder of a run."""
  return workdir / label.replace(':', '-') / f'seed_{seed}'


def _alone(config: Config) -> Debias:
  """How it debiases, without the baseline, which is a sampler here."""
  return dataclasses.replace(config.debias, baseline=False)


if __name__ == '__main__':
  sys.exit(main())
