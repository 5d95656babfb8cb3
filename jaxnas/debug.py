"""See again where training met a value that was not finite.

For instance `python -m jaxnas.debug RUN/dump-120`: replays from the last good
checkpoint to that step, and says which tensors are not finite, path by path.
"""

import dataclasses
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from jaxnas import cli, dump
from jaxnas.config import Config

if TYPE_CHECKING:
  from jaxnas.build import Experiment
  from jaxnas.training.step import TrainState

# As many names of tensors in a line.
NAMED = 5


@dataclasses.dataclass(frozen=True)
class Debug:
  """The flags."""

  dump: tyro.conf.Positional[Path]
  """The folder that the error has named."""


class Passed(Exception):
  """The step was replayed, and all was finite."""


def main(argv: Sequence[str] | None = None) -> int:
  args = cli.read(
    Debug, argv, prog='python -m jaxnas.debug', description=__doc__
  )
  with cli.usage_errors():
    about, config = dump.read(args.dump)
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas.training.loop import NonFinite

  cli.prepare_process()
  replay = of_supernet if about.seed is None else alone
  kept: list[tuple[Experiment, TrainState, Any]] = []
  with cli.outcome(args.dump, 'stopped'), tempfile.TemporaryDirectory() as name:
    try:
      with cli.usage_errors():
        go = replay(about, config, args.dump, Path(name), kept)
      go()
    except (NonFinite, FloatingPointError) as error:
      print(f'again: {error}')
      for line in describe(*kept[0]) if kept else ():
        print(line)
      return 0
    except Passed:
      pass
  print(
    f'step {about.step} was finite this time. It said: {about.error} Another '
    'machine, another version or other images may be why.'
  )
  return 1


def of_supernet(
  about: dump.Dump,
  config: Config,
  folder: Path,
  scratch: Path,
  kept: 'list[tuple[Experiment, TrainState, Any]]',
) -> Callable[[], Any]:
  """What replays training; `kept` gets what the step is given."""
  import functools

  import jax
  import jax.numpy as jnp

  from jaxnas import build, density_log, train
  from jaxnas.training.checkpoint import Checkpoints
  from jaxnas.training.loop import Schedule, fit
  from jaxnas.training.preemption import Preemption

  experiment = build.experiment(config)
  state = experiment.init_state()
  if about.checkpoint is not None:
    with Checkpoints(folder / 'checkpoints', read_only=True) as checkpoints:
      state, _ = checkpoints.restore(about.checkpoint, state)

  def step(state: 'TrainState', inputs: Any):
    at = int(state.step)
    if at == about.step:
      kept.append((experiment, jax.tree.map(jnp.copy, state), inputs))
    if at > about.step + 1:
      raise Passed
    return experiment.step_fn(state, inputs)

  def before_epoch(state: 'TrainState', epoch: int) -> 'TrainState':
    density_log.write(experiment, state, epoch, scratch)
    return train.adapt(experiment, state, epoch, scratch)

  def replay() -> None:
    last = fit(
      state,
      step,
      functools.partial(experiment.training.feed, config.seed),
      Schedule(
        steps_per_epoch=experiment.training.steps_per_epoch,
        epochs=config.total_epochs,
        log_every=config.logging.every_steps,
        save_every=config.checkpoint.every_epochs,
        also_save=(config.warmup_epochs,),
      ),
      before_epoch=before_epoch,
      save=lambda state, window: None,
      record=lambda step, row: None,
      images_per_step=config.data.batch_size * experiment.paths,
      guessing_loss=np.inf,
      preemption=Preemption(),
      label='replaying',
    )
    density_log.write(experiment, last, config.total_epochs, scratch)
    raise Passed

  return replay


def alone(
  about: dump.Dump,
  config: Config,
  folder: Path,
  scratch: Path,
  kept: 'list[tuple[Experiment, TrainState, Any]]',
) -> Callable[[], Any]:
  """What trains the architecture alone again, from the start."""
  del folder, scratch, kept
  from jaxnas import build
  from jaxnas.stand_alone import make_trainer
  from jaxnas.training.preemption import Preemption

  (arch,) = about.archs
  assert about.seed is not None
  seed = about.seed
  built = build.stand_alone(config, None if about.all else arch)
  trainer = make_trainer(config, built, None, Preemption())

  def replay() -> None:
    trainer(built.space.parse(arch), seed)
    raise Passed

  return replay


def describe(
  experiment: 'Experiment', state: 'TrainState', inputs: Any
) -> Iterator[str]:
  """What a step computes before its update, a line a path."""
  import jax
  import jax.numpy as jnp
  import optax

  from jaxnas import streams
  from jaxnas.training.digests import named

  images, net = experiment.training, experiment.trained_net
  yield 'before it: ' + _tensors(named(state.params), 'parameters')
  _, indices_B = images.order.draw(state.images, inputs, state.step)
  x_BxHxWxC, y_B = images.batch(inputs, state.step, indices_B)
  archs_PxE = experiment.sampler.sample(
    state.sampler, streams.key(experiment.config.seed, 'archs', state.step)
  )

  @jax.jit
  def of_path(params, statistics, arch_E):
    def loss(params):
      logits_BxK, _ = net.apply(
        {'params': params, **statistics},
        x_BxHxWxC,
        arch_E,
        train=True,
        mutable=['batch_stats'],
      )
      return optax.softmax_cross_entropy_with_integer_labels(
        jnp.asarray(logits_BxK, jnp.float32), y_B
      ).mean()

    return jax.value_and_grad(loss)(params)

  for arch_E in np.asarray(archs_PxE):
    loss, gradient = of_path(state.params, state.statistics, arch_E)
    arch = experiment.space.format(arch_E[: experiment.space.positions])
    found = _tensors(named(gradient), 'gradients')
    yield f'{arch}: loss {float(loss):.6g}; {found}'


def _tensors(leaves: dict[str, Any], what: str) -> str:
  """Which are not finite, and the largest of those that are."""
  arrays = {name: np.asarray(leaf, np.float32) for name, leaf in leaves.items()}
  bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
  largest = {
    name: float(np.abs(array).max())
    for name, array in arrays.items()
    if name not in bad and array.size
  }
  name = max(largest, key=lambda name: largest[name], default=None)
  more = f' and {len(bad) - NAMED} more' if len(bad) > NAMED else ''
  return '; '.join(
    [
      f'{what} that are not finite: {", ".join(bad[:NAMED])}{more}'
      if bad
      else f'all {what} are finite',
      *([] if name is None else [f'largest {largest[name]:.3g} in {name}']),
    ]
  )


if __name__ == '__main__':
  sys.exit(main())
