"""Train architectures alone, from scratch: the ground truth of a space.

For instance `python -m jaxnas.retrain --config digits_truth.py --all`.
"""

import dataclasses
import functools
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxnas import cli, correlation, progress, runs, spaces, tables
from jaxnas.config import Config
from jaxnas.spaces import Space

# (arch_E, seed) -> accuracy on the test images.
Trainer = Callable[[Int[np.ndarray, ' E'], int], float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrain(cli.Command):
  """Flags of the command."""

  arch: str | None = None
  """One architecture, in the space's notation."""
  all: bool = False
  """Every architecture of the space; writes table.json."""


def main(argv: Sequence[str] | None = None) -> int:
  args = cli.parse(Retrain, argv)
  config = args.experiment
  workdir = args.workdir or runs.new_workdir(args.config or 'retrain')
  from jaxnas.training.preemption import Preemption

  cli.keep_compiled()
  with cli.usage_errors():
    space = spaces.get(config.space)
    if args.all == (args.arch is not None):
      raise ValueError('give either --arch ARCH or --all.')
    archs_AxE = (
      space.enumerate() if args.all else space.parse(args.arch or '')[None]
    )
    trainer = make_trainer(config)
    runs.open_run(workdir, config, resume=args.resume)
  with cli.outcome(workdir), Preemption() as preemption:
    accuracy_AxS = retrain(
      space,
      archs_AxE,
      trainer,
      range(config.retrain.seeds),
      workdir / 'results.jsonl',
      preemption.check,
    )
    if args.all:
      facts = {
        'data': config.data.name,
        'agreement_of_two_seeds': agreement(accuracy_AxS, 1),
        'agreement_of_halves': agreement(
          accuracy_AxS, config.retrain.seeds // 2
        ),
        **runs.environment(),
      }
      table = tables.from_seeds(space, accuracy_AxS)
      tables.dump(table, workdir / 'table.json', **facts)
      print(
        f'{workdir / "table.json"}: {len(archs_AxE)} architectures, accuracy '
        f'{accuracy_AxS.mean(1).min():.2%} to {accuracy_AxS.mean(1).max():.2%}'
        f', Kendall {facts["agreement_of_two_seeds"]} between two seeds, '
        f'{facts["agreement_of_halves"]} between halves of them'
      )
    else:
      print(f'{args.arch}: {accuracy_AxS.mean():.2%} {accuracy_AxS[0]}')
  return 0


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


def make_trainer(config: Config) -> Trainer:
  """One compiled program for all architectures of the space.

  The stand-alone network is the supernet's definition with affine batch
  normalisation and running statistics, trained along one architecture: ops
  that it does not use have no part in it.
  """
  import jax
  import jax.numpy as jnp
  import optax

  from jaxnas import build, data, streams, supernets

  space = spaces.get(config.space)
  loaded = build.images(config, space)
  train_N, _, steps = build.training_images(config, loaded)
  images = data.DeviceImages.put(
    loaded, loaded.x_train[train_N], loaded.y_train[train_N]
  )
  test = data.DeviceImages.put(loaded, loaded.x_test, loaded.y_test)
  batch_size = config.data.batch_size
  compute = build.dtype(config.precision)
  net: Any = supernets.build(space, dtype=compute, affine=True, running=True)
  augmented = build.augmented(config, compute)
  optimizer = build.sgd(config, config.retrain.epochs, steps)

  @jax.jit
  def init(arch_E, seed):
    variables = net.init(
      streams.key(config.seed, 'retrain_init', seed),
      jnp.zeros((2, *space.image_shape)),
      arch_E,
      train=True,
    )
    return variables, optimizer.init(variables['params'])

  @functools.partial(jax.jit, donate_argnums=0)
  def train_epoch(state, images, order_N, arch_E, seed, epoch):
    def step(state, i):
      variables, moments = state
      indices_B = jax.lax.dynamic_slice(
        order_N, (i * batch_size,), (batch_size,)
      )
      key = streams.key(config.seed, 'retrain_augment', seed, epoch, i)
      x_BxHxWxC, y_B = augmented(images, indices_B, key)

      def loss(params):
        logits_BxK, updated = net.apply(
          {**variables, 'params': params},
          x_BxHxWxC,
          arch_E,
          train=True,
          mutable=['batch_stats'],
        )
        return optax.softmax_cross_entropy_with_integer_labels(
          logits_BxK, y_B
        ).mean(), updated

      params = variables['params']
      (value, updated), gradient = jax.value_and_grad(loss, has_aux=True)(
        params
      )
      updates, moments = optimizer.update(
        gradient, moments, params, used=net.used(params, arch_E)
      )
      params = optax.apply_updates(params, updates)
      return ({'params': params, **updated}, moments), value

    return jax.lax.scan(step, state, jnp.arange(steps))

  @jax.jit
  def accuracy(variables, test, arch_E):
    x_NxHxWxC, y_N = data.batch(test, jnp.arange(len(test.y_N)), dtype=compute)
    logits_NxK = net.apply(variables, x_NxHxWxC, arch_E, train=False)
    return jnp.mean(jnp.argmax(logits_NxK, -1) == y_N)

  def trainer(arch_E, seed):
    arch_E = jnp.asarray(arch_E)
    state = init(arch_E, seed)
    losses = jnp.zeros(())
    for epoch in range(config.retrain.epochs):
      order_N = data.epoch_order(config.seed + seed, epoch, len(train_N))
      state, losses = train_epoch(state, images, order_N, arch_E, seed, epoch)
    if not np.isfinite(losses).all():
      raise ArithmeticError(
        f'architecture {space.format(np.asarray(arch_E))}, seed {seed}: the '
        'loss is not finite. A lower optimizer.peak_lr may cure it.'
      )
    return float(accuracy(state[0], test, arch_E))

  return trainer


if __name__ == '__main__':
  sys.exit(main())
