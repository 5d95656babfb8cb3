"""The loop over epochs and steps: logs, saves, stops."""

import contextlib
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import processes, progress, spread
from jaxnas.training.preemption import Preemption, Stopped
from jaxnas.training.step import Metrics, Step, TrainState

# Values of `Metrics` of each step since the last row.
Window = Sequence[Sequence[float]]


class NonFinite(ArithmeticError):
  """A loss or gradient was not finite; says at which step."""


class Schedule(NamedTuple):
  """When things happen in a run."""

  steps_per_epoch: int
  epochs: int
  """In the whole run."""
  log_every: int
  """Steps in a row of metrics."""
  save_every: int
  """Epochs between checkpoints."""
  also_save: tuple[int, ...] = ()
  """Epochs after which to save besides."""
  save_minutes: float | None = None
  """Minutes after which to save besides."""


def fit(
  state: TrainState,
  step_fn: Step,
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
) -> TrainState:
  """Trains from `state.step` to the end of the last epoch.

  Args:
    state: where to start; donated.
    step_fn: from `make_step`.
    feed: step -> the inputs of that step and of those that follow; closed at
      the end.
    schedule: when to log, save and end.
    save: receives the state and the values of the steps since the last row.
    record: receives (step, row of metrics).
    images_per_step: to say images a second.
    guessing_loss: a loss above it after the first epoch is warned of.
    preemption: polled every step.
    before_epoch: (state, epoch) -> state; where the density is estimated. It
      may raise Stopped and is called again then.
    window: values of the steps since the last row, from the checkpoint.
    label: of the progress bar; None shows none.

  Raises:
    NonFinite: before anything of it is saved.
    Stopped: after saving.
  """
  steps_per_epoch, epochs = schedule.steps_per_epoch, schedule.epochs
  step, last = int(state.step), epochs * steps_per_epoch
  state = _placed(state)
  rows = [tuple(row) for row in window]
  pending: list[tuple[int, Metrics]] = []
  row_start, warned = time.monotonic(), False
  last_save = time.monotonic()

  def collect() -> None:
    """Fetches what the device has computed, one step late."""
    nonlocal rows, row_start, warned
    for at, values in pending:
      row = tuple(float(value) for value in jax.device_get(values))
      if not all(map(math.isfinite, row)):
        raise NonFinite(
          f'step {at}: loss {row[0]}, gradient norm {row[2]}. The last good '
          'checkpoint stays. A lower optimizer.peak_lr, '
          'optimizer.lr_warmup_steps or optimizer.clip_norm may cure it.'
        )
      rows.append(row)
      if (at + 1) % schedule.log_every == 0 or at + 1 == last:
        wall_s = time.monotonic() - row_start
        means = np.mean(rows, axis=0).tolist()
        record(
          at + 1,
          {
            'epoch': (at + 1) / steps_per_epoch,
            **dict(zip(Metrics._fields, means, strict=True)),
            'images_per_s': len(rows) * images_per_step / wall_s,
          },
        )
        rows, row_start = [], time.monotonic()
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
    save(state, rows)
    last_save = time.monotonic()

  def overdue() -> bool:
    """Of processes the first decides, and not at every step."""
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
          state = _placed(before_epoch(state, epoch))
        except Stopped:
          # What it polls knows of no checkpoint.
          stop()
      epoch_start, first = time.monotonic(), step
      while step < (epoch + 1) * steps_per_epoch:
        if preemption.asked():
          stop()
        try:
          input = next(inputs)
        except OSError:
          # The signal that asks to stop may have ended what reads the images.
          if preemption.requested:
            stop()
          raise
        state, values = step_fn(state, input)
        collect()
        pending.append((step, values))
        step += 1
        if rows:
          rate = (
            (step - first) * images_per_step / (time.monotonic() - epoch_start)
          )
          advance(
            1,
            f'epoch {epoch + 1}/{epochs}  loss {rows[-1][0]:.3f}  '
            f'{rate:.0f} images/s',
          )
        else:
          advance(1, f'epoch {epoch + 1}/{epochs}')
        if overdue():
          keep()
      done = epoch + 1
      # Before what `before_epoch` records, wherever a run was cut.
      collect()
      also = done in {*schedule.also_save, epochs}
      if done % schedule.save_every == 0 or also:
        keep()
  return state


def _placed(state: TrainState) -> TrainState:
  """Bound to the devices of its step, as what a checkpoint restores is.

  The step would be compiled again for each mix of arrays that are and are not.
  """
  state = jax.tree.map(jnp.asarray, state)
  return spread.put(state, state.step.sharding)
