"""Train architectures alone, from scratch: the ground truth of a space.

For instance `python -m jaxnas.retrain --config digits_truth.py --all`.
"""

import dataclasses
import functools
import itertools
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from jaxnas import cli, correlation, progress, runs, tables
from jaxnas.config import Config
from jaxnas.spaces import Space

if TYPE_CHECKING:
  from jaxnas.build import StandAlone
  from jaxnas.training.preemption import Preemption
  from jaxnas.training.step import TrainState

# (arch_E, seed) -> accuracy on the test images.
Trainer = Callable[[Int[np.ndarray, ' E'], int], float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrain(cli.Command):
  """Flags of the command."""

  arch: str | None = None
  """One architecture, in the space's notation."""
  all: bool = False
  """Every architecture of the space, with one program; writes table.json."""


def main(argv: Sequence[str] | None = None) -> int:
  args = cli.parse(Retrain, argv)
  config = args.experiment
  workdir = args.workdir or runs.new_workdir(args.config or 'retrain')
  from jaxnas import build
  from jaxnas.training.preemption import Preemption

  cli.keep_compiled()
  with cli.usage_errors():
    if args.all == (args.arch is not None):
      raise ValueError('give either --arch ARCH or --all.')
    built = build.stand_alone(config, args.arch)
    runs.open_run(workdir, config, resume=args.resume)
  space = built.space
  with cli.outcome(workdir), Preemption() as preemption:
    trainer = make_trainer(
      config, built, None if args.all else workdir, preemption
    )
    accuracy_AxS = retrain(
      space,
      space.enumerate() if args.all else space.parse(args.arch or '')[None],
      trainer,
      range(config.retrain.seeds),
      workdir / 'results.jsonl',
      preemption.check,
    )
  if args.all:
    finish_all(config, space, accuracy_AxS, workdir / 'table.json')
  else:
    finish_one(config, space, args.arch or '', accuracy_AxS[0], workdir)
  return 0


def finish_all(
  config: Config,
  space: Space,
  accuracy_AxS: Float[np.ndarray, 'A S'],
  file: Path,
) -> None:
  """Writes the truth of a space, and says how far it can be trusted."""
  facts = {
    'data': config.data.name,
    'agreement_of_two_seeds': agreement(accuracy_AxS, 1),
    'agreement_of_halves': agreement(accuracy_AxS, config.retrain.seeds // 2),
    **runs.environment(),
  }
  tables.dump(tables.from_seeds(space, accuracy_AxS), file, **facts)
  mean_A = accuracy_AxS.mean(1)
  print(
    f'{file}: {len(mean_A)} architectures, accuracy {mean_A.min():.2%} to '
    f'{mean_A.max():.2%}, Kendall {facts["agreement_of_two_seeds"]} between '
    f'two seeds, {facts["agreement_of_halves"]} between halves of them'
  )


def finish_one(
  config: Config,
  space: Space,
  arch: str,
  accuracy_S: Float[np.ndarray, ' S'],
  workdir: Path,
) -> None:
  """Writes result.json, and prints it."""
  costs = space.costs(space.parse(arch)[None])
  result = {
    'space': space.name,
    'arch': arch,
    'data': config.data.name,
    'accuracy': float(accuracy_S.mean()),
    'seeds': accuracy_S.tolist(),
    'params': int(costs.params_A[0]),
    'macs': int(costs.macs_A[0]),
    **runs.environment(),
  }
  runs.write_json(workdir / 'result.json', result)
  seeds = ', '.join(f'{accuracy:.2%}' for accuracy in accuracy_S)
  print(
    f'{arch}: {result["accuracy"]:.2%} ({seeds}), {result["params"]:,} '
    f'parameters, {result["macs"]:,} multiply-adds'
  )


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
      stream.write(
        json.dumps({'arch': arch, 'seed': seed, 'accuracy': accuracy}) + '\n'
      )
  return np.array([done[pair] for pair in wanted]).reshape(len(archs_AxE), -1)


def read_results(file: Path) -> dict[tuple[str, int], float]:
  """What is done; a row that an interruption cut short is taken out."""
  rows = runs.read_rows(file, ['arch', 'seed', 'accuracy'])
  runs.write_rows(file, rows)
  return {(row['arch'], row['seed']): row['accuracy'] for row in rows}


def make_trainer(
  config: Config,
  built: 'StandAlone',
  workdir: Path | None,
  preemption: 'Preemption',
) -> Trainer:
  """One compiled program for all that it trains.

  The stand-alone network is the supernet's definition with affine batch
  normalisation and running statistics. A seed is an experiment of its own,
  whatever the architecture: parameters of the same name start alike.

  Args:
    config: of the experiment.
    built: from `build.stand_alone`.
    workdir: gets a folder a seed, with metrics.jsonl and checkpoints from
      which a run goes on; None keeps neither.
    preemption: an active one; signals end training by Stopped.
  """
  from jaxnas import evaluation, streams, supernets
  from jaxnas.samplers import Sampler
  from jaxnas.training import loop, step

  net, batches, space = built.net, built.training, built.space
  # The arch is the sampler's state: data, so that one program serves all.
  sampler = Sampler(
    init=lambda: np.zeros((1, space.positions), np.int32),
    sample=lambda archs_PxE, key: archs_PxE,
    log_prob=lambda archs_PxE: None,
  )
  average = config.retrain.ema_decay is not None

  def count(archs_PxE):
    return archs_PxE.shape[0]

  step_fn = step.make_step(
    net,
    sampler,
    built.optimizer,
    batches.batch,
    count,
    seed=config.seed,
    label_smoothing=config.optimizer.label_smoothing,
    ema_decay=config.retrain.ema_decay or 0.0,
  )

  @functools.cache
  def fresh(seed: int) -> Any:
    some_arch_E = np.zeros(space.positions, np.int32)
    return supernets.init(net, some_arch_E, seed)

  def trainer(arch_E: Int[np.ndarray, ' E'], seed: int) -> float:
    child = streams.child(config.seed, 'retrain', seed)
    state = step.init_state(
      net, sampler, built.optimizer, count, fresh(child), average=average
    )
    state = dataclasses.replace(state, sampler=arch_E[None])
    fit = functools.partial(
      loop.fit,
      step_fn=step_fn,
      feed=functools.partial(batches.feed, child),
      schedule=loop.Schedule(
        steps_per_epoch=batches.steps_per_epoch,
        epochs=config.retrain.epochs,
        log_every=config.logging.every_steps,
        save_every=config.checkpoint.every_epochs,
      ),
      images_per_step=config.data.batch_size,
      guessing_loss=math.log(space.classes),
      preemption=preemption,
    )
    try:
      if workdir is None:
        state = fit(
          state,
          save=lambda state, window: None,
          record=lambda step, row: None,
          label=None,
        )
      else:
        state = _fit_with_checkpoints(
          fit, state, workdir / f'seed_{seed}', config.checkpoint.keep
        )
    except loop.NonFinite as error:
      raise loop.NonFinite(
        f'{space.format(arch_E)}, seed {seed}: {error}'
      ) from error
    (accuracy,) = evaluation.accuracies(
      net,
      state.variables,
      arch_E[None],
      built.test.batch,
      len(built.test),
      batch_size=config.ranking.batch_size,
      label=None,
      poll=preemption.check,
    )
    return float(accuracy)

  return trainer


def _fit_with_checkpoints(
  fit: 'Callable[..., TrainState]', state: 'TrainState', folder: Path, keep: int
) -> 'TrainState':
  """From the newest checkpoint in the folder to the end."""
  from jaxnas.training.checkpoint import Checkpoints
  from jaxnas.training.metrics import MetricsFile

  with Checkpoints(folder / 'checkpoints', keep=keep) as checkpoints:
    window = []
    if steps := checkpoints.steps():
      state, notes = checkpoints.restore(steps[-1], state)
      window = notes['window']
      print(f'{folder}: goes on at step {int(state.step)}')
    metrics = MetricsFile(folder / 'metrics.jsonl', int(state.step))
    return fit(
      state,
      save=lambda state, window: checkpoints.save(state, {'window': window}),
      record=metrics.write,
      window=window,
    )


if __name__ == '__main__':
  sys.exit(main())
