"""Train architectures alone, from scratch: the ground truth of a space.

For instance `python -m jaxnas.retrain --config digits_truth.py --all`, or
`python -m jaxnas.retrain --run RUN --arch best`.
"""

import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from jaxnas import cli, correlation, progress, runs, tables, trained
from jaxnas.config import Config
from jaxnas.spaces import Space
from jaxnas.stand_alone import Trainer, make_trainer

if TYPE_CHECKING:
  from jaxnas.build import StandAloneExperiment

# The file of a run that says what it trains.
WHICH = 'retrain.json'

# And what one architecture came to.
RESULT = 'result.json'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrain(cli.Command):
  """Flags of the command."""

  run: Path | None = None
  """A run of jaxnas.train, instead of --config: its space and its data."""
  arch: str | None = None
  """One architecture, in the space's notation; best: what the search in the
  run's folder `search` has found, else what the run ranks first."""
  all: bool = False
  """Every architecture of the space, with one program; writes table.json."""


def main(argv: Sequence[str] | None = None) -> int:
  args = cli.parse(Retrain, argv)
  config = args.experiment
  workdir = args.workdir or (
    args.run / 'retrain'
    if args.run
    else runs.new_workdir(args.config or 'retrain')
  )
  from jaxnas import build
  from jaxnas.training.preemption import Preemption

  cli.prepare_process()
  with cli.usage_errors():
    arch = which(args, workdir)
    built = build.stand_alone(config, arch)
    runs.open_run(workdir, config, resume=args.resume)
    runs.write_json(workdir / WHICH, {'arch': arch})
  space = built.space
  archs_AxE, form_A = to_train(space, arch)
  with cli.outcome(workdir), Preemption() as preemption:
    trainer = make_trainer(
      config, built, None if arch is None else workdir, preemption
    )
    accuracy_AxS = retrain(
      space,
      archs_AxE,
      trainer,
      range(config.retrain.seeds),
      workdir / 'results.jsonl',
      preemption.check,
    )
    if arch is None:
      finish_all(built, config, accuracy_AxS[form_A], workdir / 'table.json')
    else:
      finish_one(built, config, arch, accuracy_AxS[0], workdir)
  return 0


def which(args: Retrain, workdir: Path) -> str | None:
  """The architecture to train, None for all: of the flags, or of the run.

  Raises ValueError where they name none, or another one.
  """
  given, kept = args.arch, workdir / WHICH
  if given == 'best':
    if args.run is None:
      raise ValueError('--arch best is what a run has found: give --run RUN.')
    given = trained.best_arch(args.run)
  if args.resume and kept.exists():
    arch = arch_of(workdir)
    if (given, args.all) in ((None, False), (arch, arch is None)):
      return arch
    raise ValueError(
      f'{workdir} trains {arch or "all"}, not {given or "all"}: resume it '
      'as it is, or choose another --workdir.'
    )
  if args.all == (args.arch is not None):
    raise ValueError('give either --arch ARCH or --all.')
  return given


def arch_of(run: Path) -> str | None:
  """The architecture that a run trains, None for all.

  Raises Damaged where it does not say.
  """
  return runs.read_json(run / WHICH, {'arch': (str, type(None))})['arch']


def to_train(
  space: Space, arch: str | None
) -> tuple[Int[np.ndarray, 'D E'], Int[np.ndarray, ' A']]:
  """The networks to train, and for each architecture the row of its own.

  Of architectures that are the same network one is trained.
  """
  if arch is not None:
    return space.parse(arch)[None], np.zeros(1, np.int64)
  forms_AxE = space.canonical(space.enumerate())
  archs_DxE, form_A = np.unique(forms_AxE, axis=0, return_inverse=True)
  return archs_DxE, form_A.reshape(-1)


def finish_all(
  built: 'StandAloneExperiment',
  config: Config,
  accuracy_AxS: Float[np.ndarray, 'A S'],
  file: Path,
) -> None:
  """Writes the truth of a space, and says how far it can be trusted."""
  facts = {
    'agreement_of_two_seeds': agreement(accuracy_AxS, 1),
    'agreement_of_halves': agreement(accuracy_AxS, config.retrain.seeds // 2),
    **provenance(built, config),
  }
  tables.dump(tables.from_seeds(built.space, accuracy_AxS), file, **facts)
  mean_A = accuracy_AxS.mean(1)
  print(
    f'{file}: {len(mean_A)} architectures, accuracy {mean_A.min():.2%} to '
    f'{mean_A.max():.2%}, Kendall {facts["agreement_of_two_seeds"]} between '
    f'two seeds, {facts["agreement_of_halves"]} between halves of them'
  )


def finish_one(
  built: 'StandAloneExperiment',
  config: Config,
  arch: str,
  accuracy_S: Float[np.ndarray, ' S'],
  workdir: Path,
) -> None:
  """Writes result.json, and prints it."""
  costs = built.space.costs(built.space.parse(arch)[None])
  result = {
    'space': built.space.name,
    'arch': arch,
    'accuracy': float(accuracy_S.mean()),
    'seeds': accuracy_S.tolist(),
    'params': int(costs.params_A[0]),
    'macs': int(costs.macs_A[0]),
    **provenance(built, config),
  }
  runs.write_json(workdir / RESULT, result)
  seeds = ', '.join(f'{accuracy:.2%}' for accuracy in accuracy_S)
  print(
    f'{arch}: {result["accuracy"]:.2%} ({seeds}), {result["params"]:,} '
    f'parameters, {result["macs"]:,} multiply-adds'
  )


def provenance(built: 'StandAloneExperiment', config: Config) -> dict[str, Any]:
  """Where accuracies come from, ready for JSON; warns of replaced images."""
  if built.skipped:
    print(
      f'warning: {len(built.skipped)} unreadable images were replaced by '
      f'others, such as {min(built.skipped)}'
    )
  return {
    'data': config.data.name,
    'skipped_images': len(built.skipped),
    **runs.environment(),
  }


def agreement(
  accuracy_AxS: Float[np.ndarray, 'A S'], seeds: int
) -> float | None:
  """Mean Kendall tau-b between means over disjoint sets of so many seeds.

  With one seed a side it says how far a single run can be trusted, with half
  of them a side nearly how far the mean of all can. None where undefined.
  """
  everyone = range(accuracy_AxS.shape[1])
  taus = [
    correlation.kendall(
      accuracy_AxS[:, one].mean(axis=1), accuracy_AxS[:, other].mean(axis=1)
    )
    for one in itertools.combinations(everyone, seeds)
    for other in itertools.combinations(sorted({*everyone} - {*one}), seeds)
    if one < other
  ]
  defined = [tau for tau in taus if tau is not None]
  return float(np.mean(defined)) if defined else None


def retrain(
  space: Space,
  archs_AxE: Int[np.ndarray, 'A E'],
  trainer: Trainer,
  seeds: Sequence[int],
  results: Path,
  poll: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, 'A S']:
  """Accuracies of every arch and seed; those in `results` are not repeated.

  Args:
    space: of the architectures.
    archs_AxE: which to train.
    trainer: from `make_trainer`.
    seeds: of each architecture.
    results: jsonl; a row is added when an arch and seed is done.
    poll: called before each; may raise.
  """
  done = read_results(results)
  wanted = [
    (space.format(arch_E), seed) for arch_E in archs_AxE for seed in seeds
  ]
  missing = [pair for pair in wanted if pair not in done]
  with results.open('a', buffering=1) as stream:
    for arch, seed in progress.track(
      missing, 'stand-alone', len(missing), poll
    ):
      accuracy = trainer(space.parse(arch), seed)
      done[arch, seed] = accuracy
      row = {'arch': arch, 'seed': seed, 'accuracy': accuracy}
      with runs.naming(results):
        stream.write(json.dumps(row) + '\n')
  return np.array([done[pair] for pair in wanted]).reshape(len(archs_AxE), -1)


def read_results(file: Path) -> dict[tuple[str, int], float]:
  """What is done; a row that an interruption cut short is taken out."""
  rows = runs.read_rows(
    file, {'arch': str, 'seed': int, 'accuracy': (float, int)}
  )
  runs.write_rows(file, rows)
  return {(row['arch'], row['seed']): row['accuracy'] for row in rows}


if __name__ == '__main__':
  sys.exit(main())
