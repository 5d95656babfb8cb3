"""Decodes and batches images that do not fit in memory as training goes.

The step is the whole state: the images of a batch and their crops are functions
of the seed and the step, with any number of workers. States of grain's
iterators are never kept, since they depend on the workers.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent import futures
from typing import Any, Literal

import numpy as np
from jaxtyping import Array, Int, Int32, UInt8
from PIL import Image

from jaxnas.data import crops
from jaxnas.data.encoded import Encoded
from jaxnas.data.placing import ON_ONE, Placing
from jaxnas.data.skipped import SkippedImages
from jaxnas.runtime import errors, guards, signals, words
from jaxnas.runtime.rng import generator

OnError = Literal['raise', 'skip']
Batch = tuple[UInt8[Array, 'B H W C'], Int32[Array, ' B']]

_THREADS = min(16, os.cpu_count() or 1)
_BATCHES_AHEAD = 2
"""Number of batches on the host; each worker has as many of its own."""


def feed(
  source: Encoded,
  indices_T: Int[np.ndarray, ' T'],
  *,
  seed: int,
  batch_size: int,
  size: int,
  flip: bool,
  workers: int,
  on_error: OnError,
  skipped: SkippedImages,
  placing: Placing = ON_ONE,
) -> Callable[[int], Generator[Batch, None, None]]:
  """Makes batches on the device, from a step on and without end.

  An epoch is a permutation of the images, and drops the rest of T / B. Close
  the iterator: its threads or processes end with it.

  Args:
    source: the images.
    indices_T: the images to train on.
    seed: decides the order and the crops.
    batch_size: B.
    size: height and width of the random crops.
    flip: mirror half of the crops.
    workers: processes that decode; 0 for threads of this one.
    on_error: 'raise' makes an unreadable image an error, 'skip' replaces it by
      the next readable one of the epoch.
    skipped: gets the names of images that a batch lacks.
    placing: says which rows of a batch this process reads, and their devices.

  Raises ValueError where there are fewer images than B. Its iterators raise
  OSError where an image is unreadable or a worker has died.
  """
  steps_per_epoch = len(indices_T) // batch_size
  if not steps_per_epoch:
    raise ValueError(
      f'batch_size is {batch_size}, more than '
      f'{words.counted(len(indices_T), "image")}.'
    )
  samples = _Samples(
    source,
    indices_T,
    seed,
    steps_per_epoch * batch_size,
    batch_size,
    placing.share(batch_size),
    size,
    flip,
    on_error,
  )

  def batches(step: int) -> Generator[Batch, None, None]:
    data = _pipeline(samples, step, workers)
    ahead = collections.deque()
    with contextlib.closing(iter(data)) as host:
      while True:
        x_BxHxWxC, y_B, unreadable_U = _next(host)
        batch = placing.batch((x_BxHxWxC, y_B), batch_size)
        ahead.append((batch, unreadable_U))
        # The next one is on its way to the device while this one is used.
        if len(ahead) > 1:
          batch, unreadable_U = ahead.popleft()
          skipped.add(source.name(int(i)) for i in unreadable_U)
          yield batch

  return batches


def read(
  source: Encoded,
  indices_M: Int[np.ndarray, ' M'],
  *,
  size: int,
  on_error: OnError,
  skipped: SkippedImages,
) -> tuple[UInt8[np.ndarray, 'M H W C'], Int32[np.ndarray, ' M']]:
  """Reads central crops and labels, for evaluation.

  Arguments and errors are those of `feed`; an unreadable image is replaced by
  the next readable one of the indices.
  """

  def one(m: int) -> tuple[np.ndarray, int, list[int]]:
    image, index, unreadable = _first_readable(
      source, _from(indices_M, m), on_error
    )
    return crops.center_crop(image, size), index, unreadable

  count = len(indices_M)
  x_MxHxWxC = np.empty((count, size, size, 3), np.uint8)
  y_M = np.empty(count, np.int32)
  with futures.ThreadPoolExecutor(_THREADS) as pool:
    for m, (x_HxWxC, index, unreadable) in enumerate(
      pool.map(one, range(count))
    ):
      x_MxHxWxC[m], y_M[m] = x_HxWxC, source.labels_N[index]
      skipped.add(map(source.name, unreadable))
  return x_MxHxWxC, y_M


@dataclasses.dataclass(frozen=True, eq=False)
class _Samples:
  """Makes samples by number, in a worker process that gets a copy.

  Numbers count this process's share alone, over all steps.
  """

  source: Any
  indices_T: np.ndarray
  seed: int
  per_epoch: int
  batch_size: int
  share: range
  size: int
  flip: bool
  on_error: OnError

  def __call__(self, m: int) -> tuple[np.ndarray, int, list[int]]:
    """Returns crop, label, and the images that it replaces."""
    step, row = divmod(m, len(self.share))
    n = step * self.batch_size + self.share[row]
    epoch, position = divmod(n, self.per_epoch)
    order_T = _order(self.seed, epoch, len(self.indices_T))
    image, index, unreadable = _first_readable(
      self.source,
      (int(self.indices_T[i]) for i in _from(order_T, position)),
      self.on_error,
    )
    rng = generator(self.seed, 'augment', epoch, position)
    x_HxWxC = crops.random_resized_crop(image, rng, self.size, flip=self.flip)
    return x_HxWxC, int(self.source.labels_N[index]), unreadable


# Batches on either side of the end of an epoch are made at the same time.
@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> Int[np.ndarray, ' T']:
  return generator(seed, 'order', epoch).permutation(count)


def _from(indices: Int[np.ndarray, ' M'], start: int) -> Iterator[int]:
  """Yields all indices, once around from `start`."""
  for m in range(len(indices)):
    yield int(indices[(start + m) % len(indices)])


def _first_readable(
  source: Encoded, indices: Iterable[int], on_error: OnError
) -> tuple[Image.Image, int, list[int]]:
  """Returns the image, its index, and the unreadable indices before it."""
  unreadable = []
  reason = ''
  for index in indices:
    try:
      return crops.decode(source.read(index)), index, unreadable
    except errors.Different:
      raise  # No other image replaces it: the whole set has changed.
    except (OSError, ValueError) as error:
      reason = ' '.join(str(error).split())[:200]
      if on_error == 'raise':
        raise OSError(
          f'image {source.name(index)} is unreadable ({reason}): replace it, '
          'or go on without such images: --data.on_error skip.'
        ) from None
      unreadable.append(index)
  raise OSError(
    f'none of {words.counted(len(unreadable), "image")} is readable, as '
    f'{source.name(unreadable[-1])} ({reason}).'
  )


def _pipeline(samples: _Samples, step: int, workers: int) -> Any:
  """Returns grain's data set of (x_BxHxWxC, y_B, unreadable_U) from a step."""
  # Imported late: only streamed images need them, and they are slow to import.
  import grain
  from absl import flags

  # Grain reads its settings from flags, which fail unless main parsed them.
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  batch_size = len(samples.share)
  end = sys.maxsize // samples.batch_size * batch_size
  data = grain.MapDataset.range(step * batch_size, end).map(samples)
  if not workers:
    ahead = max(_BATCHES_AHEAD * batch_size, _THREADS)
    read = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=ahead)
    return data.to_iter_dataset(read).batch(batch_size, batch_fn=_stack)
  guards.check_main()
  # Whole batches come from a worker: their contents depend on no layout.
  return (
    data.batch(batch_size, batch_fn=_stack)
    .to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    .mp_prefetch(
      grain.MultiprocessingOptions(
        num_workers=workers, per_worker_buffer_size=_BATCHES_AHEAD
      ),
      worker_init_fn=_begin_worker,
    )
  )


def _next(host: Iterator[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  try:
    # An array on a CPU may be the memory shared with a worker, and would hold
    # it for as long as it lives.
    x_BxHxWxC, y_B, unreadable_U = map(np.array, next(host))
  except OSError as error:
    # grain's frames hold shared memory too.
    raise OSError(str(error.with_traceback(None))) from None
  except RuntimeError as error:
    raise OSError(
      f'a process that decodes images has died ({error}) Too little memory, or '
      'a small /dev/shm, are the usual reasons, and a script that starts them '
      "outside of if __name__ == '__main__':; --data.workers 0 needs none."
    ) from error
  return x_BxHxWxC, y_B, unreadable_U


def _stack(
  samples: Sequence[tuple[np.ndarray, int, list[int]]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  x, y, unreadable = zip(*samples, strict=True)
  return (
    np.stack(x),
    np.array(y, np.int32),
    np.array(sorted({*itertools.chain(*unreadable)}), np.int64),
  )


def _begin_worker(index: int, count: int) -> None:
  """Leaves signals to the main process, and ends with it."""
  # A batch system signals every process, and the main one has yet to save.
  for number in signals.ASK_TO_STOP:
    signal.signal(number, signal.SIG_IGN)
  parent = multiprocessing.parent_process()
  assert parent is not None  # only the main process has none

  def end_with_parent() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=end_with_parent, daemon=True).start()
