"""The training loop over epochs and steps: it logs, saves and stops.

The loop is a generator that asks for its steps, so that who drives it may take
those of one training, or of several at once.
"""

import contextlib
import math
import time
from collections.abc import (
  Callable,
  Generator,
  Iterable,
  Iterator,
  Mapping,
  Sequence,
)
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.runtime import devices, processes, progress
from jaxnas.runtime.errors import Stopped
from jaxnas.runtime.preemption import Preemption
from jaxnas.training.digests import named
from jaxnas.training.pace import Pace
from jaxnas.training.step import LOGGED, Metrics, Step, TrainState
from jaxnas.training.turns import Asked, Held, Read, Turns, alone

# The logged values of each step since the last row of metrics.
Window = Sequence[Sequence[float]]


class NonFinite(ArithmeticError):
  """A value was not finite; the error holds the step and its architectures.

  There are no architectures where the value was seen between two steps. The
  seed is that of an architecture trained alone, else None.
  """

  def __init__(
    self,
    text: str,
    step: int,
    archs_PxE: Any = (),
    seed: int | None = None,
  ):
    super().__init__(text)
    self.step, self.archs_PxE, self.seed = step, archs_PxE, seed


CURE = (
  'The last good checkpoint stays. A lower optimizer.peak_lr, '
  'optimizer.lr_warmup_steps or optimizer.clip_norm may cure it.'
)


class Schedule(NamedTuple):
  """Steps and epochs at which a run logs, saves and ends."""

  steps_per_epoch: int
  epochs: int
  """Number of epochs in the whole run, warm-up included."""
  log_every: int
  """Number of steps that a row of metrics averages."""
  save_every: int
  """Number of epochs between checkpoints."""
  also_save: tuple[int, ...] = ()
  """Further numbers of epochs after which to save."""
  save_minutes: float | None = None
  """Minutes since the last checkpoint after which to save, too; None: never."""


class Dispatch(NamedTuple):
  """Several steps as one program."""

  steps: int
  run: Step
  """(state, inputs that all of them share) -> (state, metrics, stacked)"""


def fit(
  state: TrainState,
  step_fn: Step,
  *args: Any,
  dispatch: Dispatch | None = None,
  **options: Any,
) -> TrainState:
  """Trains alone, from `state.step` to the end of the last epoch.

  Args:
    state: the start; donated.
    step_fn: from `make_step`.
    args: those of `turns`.
    dispatch: several steps as one, whose number divides those of an epoch and
      of a row.
    options: those of `turns`.

  Raises as `turns`.
  """

  def training(held: Held) -> Turns[TrainState]:
    held.put(state)
    at_once = 1 if dispatch is None else dispatch.steps
    yield from turns(held, *args, at_once=at_once, **options)
    return held.get()

  return alone(
    training,
    lambda steps: step_fn if dispatch is None or steps == 1 else dispatch.run,
  )


def turns(
  held: Held,
  feed: Callable[[int], Generator[Any]],
  schedule: Schedule,
  *,
  save: Callable[[TrainState, Window], None],
  record: Callable[[int, Mapping[str, float]], None],
  images_per_step: int,
  guessing_loss: float,
  preemption: Preemption,
  before_epoch: Callable[[TrainState, int], TrainState] = lambda s, _: s,
  window: Window = (),
  label: str | None = 'training',
  at_once: int = 1,
) -> Turns[None]:
  """Trains from the step of the state to the end of the last epoch.

  Yields programs that take the state on, and wants their metrics.

  Args:
    held: holds the state, at first that of the start.
    feed: step -> the inputs of that step and of those that follow; closed at
      the end.
    schedule: when to log, save and end.
    save: takes the state and the values of the steps since the last row.
    record: takes (step, row of metrics).
    images_per_step: number of images, for the rate in images a second.
    guessing_loss: the loop warns of a loss above it after the first epoch.
    preemption: polled before every program.
    before_epoch: (state, epoch) -> state; it estimates densities. It may raise
      Stopped, and is called again when the run goes on.
    window: values of the steps since the last row, from the checkpoint.
    label: of the progress bar; None shows no bar.
    at_once: number of steps to ask for, which divides those of an epoch and of
      a row. They are asked for one by one where one of them has other inputs,
      as where rewards begin an epoch of their own, and up to a multiple of the
      number where the run goes on between two.

  Raises:
    NonFinite: a value is not finite; it is raised before anything is saved.
    Stopped: the run was asked to stop; the state is saved.
  """
  steps_per_epoch, epochs = schedule.steps_per_epoch, schedule.epochs
  step, last = int(held.get().step), epochs * steps_per_epoch
  held.put(_placed(held.get()))
  rows = [tuple(row) for row in window]
  pending: list[tuple[int, Read]] = []
  row_pace, epoch_pace = Pace(images_per_step), Pace(images_per_step)
  warned, compiles = False, True
  last_save = time.monotonic()

  def collect() -> None:
    """Fetches the metrics of the last step, while the next one computes."""
    nonlocal rows, warned
    done = [*_one_by_one((at, read()) for at, read in pending)]
    if done:
      row_pace.steps_done(len(done))
      epoch_pace.steps_done(len(done))
    for at, fetched in done:
      row = tuple(float(getattr(fetched, name)) for name in LOGGED)
      if not (all(map(math.isfinite, row)) and fetched.finite):
        raise NonFinite(
          f'step {at}: loss {row[0]}, gradient norm {row[2]}, statistics of '
          f'batch normalisation {"" if fetched.finite else "not "}finite. '
          f'{CURE}',
          at,
          fetched.archs_PxE,
        )
      rows.append(row)
      if (at + 1) % schedule.log_every == 0 or at + 1 == last:
        means = np.mean(rows, axis=0).tolist()
        record(
          at + 1,
          {
            'epoch': (at + 1) / steps_per_epoch,
            **dict(zip(LOGGED, means, strict=True)),
            'images_per_s': row_pace.next_row(),
          },
        )
        rows = []
        if means[0] > guessing_loss and at >= steps_per_epoch and not warned:
          warned = True
          print(
            f'warning: at step {at + 1} the loss is {means[0]:.2f}, above the '
            f'{guessing_loss:.2f} of guessing: lower optimizer.peak_lr, or '
            'set optimizer.lr_warmup_steps or optimizer.clip_norm'
          )
    pending.clear()

  def keep() -> None:
    nonlocal last_save
    collect()
    state = held.get()
    check_finite(state)
    save(state, rows)
    last_save = time.monotonic()

  def prepare(epoch: int) -> None:
    before = held.get()
    if (after := before_epoch(before, epoch)) is not before:
      held.put(_placed(after))

  def overdue() -> bool:
    """True where the last checkpoint is too old; the first process decides."""
    if schedule.save_minutes is None or (
      jax.process_count() > 1 and step % schedule.log_every
    ):
      return False
    age_s = time.monotonic() - last_save
    return processes.agreed(age_s >= 60 * schedule.save_minutes)

  def stop() -> NoReturn:
    keep()
    raise Stopped

  with (
    contextlib.closing(feed(step)) as inputs,
    progress.bar(label, last, done=step) as advance,
  ):
    for epoch in range(step // steps_per_epoch, epochs):
      if step % steps_per_epoch == 0:
        try:
          prepare(epoch)
        except Stopped:
          # `before_epoch` polls without saving.
          stop()
        except FloatingPointError as error:
          raise NonFinite(f'step {step}: {error} {CURE}', step) from error
      epoch_pace = Pace(images_per_step)
      while step < (epoch + 1) * steps_per_epoch:
        if preemption.asked():
          stop()
        try:
          given = [
            next(inputs) for _ in range(1 if step % at_once else at_once)
          ]
        except OSError:
          # The signal may have ended the processes that read images, too.
          if preemption.requested:
            stop()
          raise
        slow = contextlib.nullcontext()
        if compiles and label is not None:
          slow = progress.waiting('compiling the training step')
        compiles = False
        with slow:
          asked = [Asked(input, 1) for input in given]
          if len(given) > 1 and _alike(given):
            asked = [Asked(given[0], len(given))]
          for one in asked:
            read = yield one
            collect()
            pending.append((step, read))
            step += one.steps
        text = f'epoch {epoch + 1}/{epochs}'
        if rows:
          text += f'  loss {rows[-1][0]:.3f}'
        if (rate := epoch_pace.rate()) is not None:
          text += f'  {rate:.0f} images/s'
        advance(len(given), text)
        if overdue():
          keep()
      done = epoch + 1
      # Rows come before those of `before_epoch`, wherever a run was cut.
      collect()
      also = done in {*schedule.also_save, epochs}
      if done % schedule.save_every == 0 or also:
        keep()


def _alike(inputs: Sequence[Any]) -> bool:
  """Returns True where all inputs are the same arrays."""
  first, *others = map(jax.tree.leaves, inputs)
  return all(
    a is b for other in others for a, b in zip(first, other, strict=True)
  )


def _one_by_one(
  pending: Iterable[tuple[int, Metrics]],
) -> Iterator[tuple[int, Metrics]]:
  """Yields each step's metrics, of which those of a program are stacked."""
  for at, values in pending:
    if np.ndim(values.loss) == 0:
      yield at, values
      continue
    for i in range(len(values.loss)):
      yield at + i, Metrics(*(leaf[i] for leaf in values))


def check_finite(state: TrainState) -> None:
  """Raises NonFinite where anything trained has a value that is not finite.

  The last update may have made it from a finite gradient.
  """
  trained = {
    name: getattr(state, name)
    for name in ('params', 'statistics', 'average', 'optimizer')
  }
  for path, leaf in named(trained).items():
    if not np.isfinite(np.asarray(leaf, np.float32)).all():
      step = int(state.step) - 1
      raise NonFinite(
        f'step {step}: {path} is not finite after it. {CURE}', step
      )


def _placed(state: TrainState) -> TrainState:
  """Commits all arrays to the devices of `step`, as a restored state is.

  JAX would compile the step again for each mix of committed and other arrays.
  """
  state = jax.tree.map(jnp.asarray, state)
  return devices.put(state, state.step.sharding)
