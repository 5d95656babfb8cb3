"""The loop over epochs and steps: logs, saves, stops."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int

from jaxnas import progress
from jaxnas.training.checkpoint import Checkpoints
from jaxnas.training.metrics import MetricsFile
from jaxnas.training.preemption import Preemption, Stopped
from jaxnas.training.step import Metrics, Step, TrainState


class NonFinite(ArithmeticError):
  """A loss or gradient was not finite; says at which step."""


def fit(
  state: TrainState,
  step_fn: Step,
  images: Any,
  *,
  order: Callable[[int], Int[Array, ' N']],
  before_epoch: Callable[[TrainState, int], TrainState],
  steps_per_epoch: int,
  epochs: int,
  images_per_step: int,
  checkpoints: Checkpoints,
  checkpoint_every: int,
  checkpoint_also: Sequence[int],
  metrics: MetricsFile,
  log_every: int,
  window: Sequence[Sequence[float]],
  preemption: Preemption,
) -> TrainState:
  """Trains from `state.step` to the end of the last epoch.

  Args:
    state: where to start; donated.
    step_fn: from `make_step`.
    images: its second argument.
    order: epoch -> order of the images.
    before_epoch: (state, epoch) -> state; where the density is estimated.
    steps_per_epoch: steps in an epoch.
    epochs: in the whole run.
    images_per_step: to say images a second.
    checkpoints: where to save.
    checkpoint_every: epochs between two.
    checkpoint_also: ends of epochs at which to save besides.
    metrics: where rows go.
    log_every: steps in a row of metrics.
    window: values of the steps since the last row, from the checkpoint.
    preemption: polled every step.

  Raises:
    NonFinite: before anything of it is saved.
    Stopped: after saving.
  """
  step, last = int(state.step), epochs * steps_per_epoch
  rows = [tuple(row) for row in window]
  pending: list[tuple[int, Metrics]] = []
  row_start = time.monotonic()

  def collect() -> None:
    """Fetches what the device has computed, one step late."""
    nonlocal rows, row_start
    for at, values in pending:
      row = tuple(float(value) for value in jax.device_get(values))
      if not all(map(math.isfinite, row)):
        raise NonFinite(
          f'step {at}: loss {row[0]}, gradient norm {row[2]}. The last good '
          'checkpoint stays. A lower optimizer.peak_lr, '
          'optimizer.lr_warmup_steps or optimizer.clip_norm may cure it.'
        )
      rows.append(row)
      if (at + 1) % log_every == 0 or at + 1 == last:
        wall_s = time.monotonic() - row_start
        means = np.mean(rows, axis=0).tolist()
        metrics.write(
          at + 1,
          {
            'epoch': (at + 1) / steps_per_epoch,
            **dict(zip(Metrics._fields, means, strict=True)),
            'images_per_s': len(rows) * images_per_step / wall_s,
          },
        )
        rows, row_start = [], time.monotonic()
    pending.clear()

  def save() -> None:
    collect()
    checkpoints.save(state, {'window': rows})

  with progress.bar('training', last, done=step) as advance:
    for epoch in range(step // steps_per_epoch, epochs):
      if step % steps_per_epoch == 0:
        state = before_epoch(state, epoch)
      order_N = order(epoch)
      epoch_start, first = time.monotonic(), step
      while step < (epoch + 1) * steps_per_epoch:
        if preemption.requested:
          save()
          raise Stopped
        state, values = step_fn(state, images, order_N)
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
      done = epoch + 1
      if done % checkpoint_every == 0 or done in {*checkpoint_also, epochs}:
        save()
    collect()
  return state
