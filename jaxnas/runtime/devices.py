"""Runs many architectures in one program, divided among all devices."""

import collections
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Bool, Int

from jaxnas.runtime import graphs

ARCHS = 'archs'

T = TypeVar('T')


class Chunk(NamedTuple):
  """Architectures that are computed together, and their results.

  The last chunk repeats architectures to be as long as the others; `real_C` is
  False for the repeated ones.
  """

  indices_C: Int[np.ndarray, ' C']
  real_C: Bool[np.ndarray, ' C']
  values: Any
  """A pytree whose leaves have the leading axis C, on the devices."""


def devices() -> Mesh:
  """Returns the devices of all processes, along one axis of architectures."""
  return jax.make_mesh(
    (len(jax.devices()),), (ARCHS,), axis_types=(AxisType.Auto,)
  )


def everywhere(tree: Any) -> Any:
  """Puts a pytree of arrays whole on every device."""
  return put(tree, NamedSharding(devices(), PartitionSpec()))


def put(tree: Any, whole: Sharding) -> Any:
  """Puts arrays on devices, which may belong to several processes.

  Each process brings the same arrays. With one it is `jax.device_put`.
  """
  if jax.process_count() == 1:
    return jax.device_put(tree, whole)
  return jax.jit(lambda tree: tree, out_shardings=whole)(tree)


def over_archs(fn: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
  """Makes a jitted map of `fn` over architectures, divided among devices.

  The map takes (shared, each) and gives fn(shared, one) for every `one` along
  the first axis of `each`, whose length is a multiple of the number of devices.
  A device takes its share one after the other: under a vmap a switch would run
  all of its branches.
  """

  def on_device(shared, each):
    return jax.lax.map(lambda one: fn(shared, one), each)

  return graphs.jit(
    jax.shard_map(
      on_device,
      mesh=devices(),
      in_specs=(PartitionSpec(), PartitionSpec(ARCHS)),
      out_specs=PartitionSpec(ARCHS),
      # Gradients by `shared` stay those of one architecture.
      check_vma=False,
    )
  )


def chunks(
  count: int, per_device: int
) -> Iterator[tuple[Int[np.ndarray, ' C'], Bool[np.ndarray, ' C']]]:
  """Splits range(count) into chunks of equal length: (indices_C, real_C).

  Args:
    count: length of the range; 0 gives no chunk.
    per_device: the largest share of a chunk that a device takes.
  """
  number = len(jax.devices())
  length = number * min(per_device, max(-(-count // number), 1))
  for start in range(0, count, length):
    indices_C = np.arange(start, start + length)
    yield np.minimum(indices_C, count - 1), indices_C < count


def one_late(items: Iterable[T]) -> Iterator[T]:
  """Yields each item once the next one is under way.

  The devices compute the next one while the host reads this one.
  """
  waiting: list[T] = []
  for item in items:
    waiting.append(item)
    if len(waiting) == 2:
      yield waiting.pop(0)
  yield from waiting


def together(iterators: Sequence[Iterator[T]]) -> Iterator[T]:
  """Yields items of the iterators in turns; the next ones are made meanwhile.

  Each iterator has a thread. Programs that one thread starts follow each other
  without a gap, and those of two threads fill the cores that either leaves
  idle. Several processes use no threads, since they must start programs in the
  same order.
  """
  if jax.process_count() > 1:
    yield from itertools.chain(*iterators)
    return
  end = object()
  # Threads start with the default precision, even if another one is set here.
  wide = jax.numpy.result_type(float) == jax.numpy.float64

  def advance(iterator: Iterator[T]) -> T | object:
    with jax.enable_x64(wide):
      return next(iterator, end)

  with contextlib.ExitStack() as stack:
    waiting = collections.deque()
    for iterator in iterators:
      thread = stack.enter_context(ThreadPoolExecutor(1))
      waiting.append((thread, iterator, thread.submit(advance, iterator)))
      # The first one runs alone: the others find what it has compiled.
      futures.wait([waiting[0][-1]])
    while waiting:
      thread, iterator, future = waiting.popleft()
      item: Any = future.result()
      if item is not end:
        waiting.append((thread, iterator, thread.submit(advance, iterator)))
        yield item
