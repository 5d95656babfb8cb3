"""Train with several samplers under one budget, and hold them side by side.

For instance `python -m jaxnas.compare --config quickstart.py --samplers
uniform,uniform+debias,tree:iterative,tree:iterative+debias`.
"""

import dataclasses
import gc
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnas import (
  cli,
  compare_tables,
  runs,
  tables,
  train,
  warm_up,
)
from jaxnas.compare_flags import DEBIAS, WHAT, Compare, configure, to_compare
from jaxnas.config import Config, Debias

if TYPE_CHECKING:
  from jaxnas import data
  from jaxnas.training.preemption import Preemption

# What is shown of a result.
RESULT = {'n': int, 'best_arch_accuracy': (float, int), 'compute': dict}


def main(argv: Sequence[str] | None = None) -> int:
  args = cli.parse(Compare, argv)
  workdir = args.workdir or runs.new_workdir('compare')
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas import data_config
  from jaxnas.training.preemption import Preemption

  cli.prepare_process()
  with cli.usage_errors():
    what = to_compare(args, workdir)
    base = dataclasses.replace(args.experiment, debias=_alone(args.experiment))
    loaded = data_config.images(base)
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
