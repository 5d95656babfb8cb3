"""The training loop over epochs and steps: it logs, saves and stops."""

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.runtime import devices, processes, progress
from jaxnas.runtime.errors import Stopped
from jaxnas.runtime.preemption import Preemption
from jaxnas.training.digests import named
from jaxnas.training.step import LOGGED, Metrics, Step, TrainState

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


class Pace:
  """Images a second, over steps whose results are there.

  A step is given to the device before its result is there, and the first one
  of a process compiles: the count begins with the first result.
  """

  def __init__(self, images_per_step: int):
    self._images, self._steps, self._first = images_per_step, 0, 1
    self._begun_s, self._since_s, self._last = time.monotonic(), None, None

  def steps_done(self, count: int) -> None:
    """Notes that the results of so many steps have come at once."""
    if self._since_s is None:
      self._since_s, self._first = time.monotonic(), count
    else:
      self._steps += count

  def rate(self) -> float | None:
    """Returns None before the second result."""
    if self._since_s is None or not self._steps:
      return None
    return self._steps * self._images / (time.monotonic() - self._since_s)

  def next_row(self) -> float:
    """Returns the rate of a row of metrics, and begins the next one.

    A row of the first result alone has its rate, compilation included; one
    whose steps came with those of the row before has the rate of that.
    """
    now_s = time.monotonic()
    first = self._first * self._images / (now_s - self._begun_s)
    self._last = self.rate() or self._last or first
    self._since_s, self._steps = now_s, 0
    return self._last


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
  dispatch: Dispatch | None = None,
) -> TrainState:
  """Trains from `state.step` to the end of the last epoch.

  Args:
    state: the start; donated.
    step_fn: from `make_step`.
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
    dispatch: several steps as one, whose number divides those of an epoch and
      of a row. They run one by one where one of them has other inputs, as
      where rewards begin an epoch of their own, and up to a multiple of the
      number where the run goes on between two.

  Raises:
    NonFinite: a value is not finite; it is raised before anything is saved.
    Stopped: the run was asked to stop; the state is saved.
  """
  steps_per_epoch, epochs = schedule.steps_per_epoch, schedule.epochs
  step, last = int(state.step), epochs * steps_per_epoch
  state = _placed(state)
  rows = [tuple(row) for row in window]
  pending: list[tuple[int, Metrics]] = []
  at_once = 1 if dispatch is None else dispatch.steps
  row_pace, epoch_pace = Pace(images_per_step), Pace(images_per_step)
  warned, compiles = False, True
  last_save = time.monotonic()

  def collect() -> None:
    """Fetches the metrics of the last step, while the next one computes."""
    nonlocal rows, warned
    done = [*_one_by_one(jax.device_get(pending))]
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
    check_finite(state)
    save(state, rows)
    last_save = time.monotonic()

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
          state = _placed(before_epoch(state, epoch))
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
          if dispatch is not None and len(given) > 1 and _alike(given):
            state, values = dispatch.run(state, given[0])
            collect()
            pending.append((step, values))
            step += len(given)
          else:
            for input in given:
              state, values = step_fn(state, input)
              collect()
              pending.append((step, values))
              step += 1
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
  return state


def _alike(inputs: Sequence[Any]) -> bool:
  """Returns True where all inputs are the same arrays."""
  first, *others = map(jax.tree.leaves, inputs)
  return all(
    a is b for other in others for a, b in zip(first, other, strict=True)
  )


def _one_by_one(
  pending: Sequence[tuple[int, Metrics]],
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
