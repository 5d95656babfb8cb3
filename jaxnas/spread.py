"""Many architectures in one program, spread over the devices there are."""

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

ARCHS = 'archs'

T = TypeVar('T')


class Block(NamedTuple):
  """Architectures that are computed together, and what came out.

  The last block repeats architectures to be as long as the others; `real_C`
  tells which count.
  """

  indices_C: Int[np.ndarray, ' C']
  real_C: Bool[np.ndarray, ' C']
  values: Any
  """A pytree whose leaves have the leading axis C, on the devices."""


def devices() -> Mesh:
  """Those of all processes, along one axis of architectures."""
  return jax.make_mesh(
    (len(jax.devices()),), (ARCHS,), axis_types=(AxisType.Auto,)
  )


def everywhere(tree: Any) -> Any:
  """A pytree of arrays, whole on every device."""
  return put(tree, NamedSharding(devices(), PartitionSpec()))


def put(tree: Any, whole: Sharding) -> Any:
  """As `jax.device_put`, also on devices of several processes.

  Each of them brings the same arrays.
  """
  if jax.process_count() == 1:
    return jax.device_put(tree, whole)
  return jax.jit(lambda tree: tree, out_shardings=whole)(tree)


def over_archs(fn: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
  """(shared, each) -> fn(shared, one) for every `one` along each's first axis.

  Jitted. Each device takes as many, one after the other: under a vmap a
  switch would run all of its branches. The axis is a multiple of the number
  of devices.
  """

  def of_device(shared, each):
    return jax.lax.map(lambda one: fn(shared, one), each)

  return jax.jit(
    jax.shard_map(
      of_device,
      mesh=devices(),
      in_specs=(PartitionSpec(), PartitionSpec(ARCHS)),
      out_specs=PartitionSpec(ARCHS),
      # Gradients of what is shared stay those of one architecture.
      check_vma=False,
    )
  )


def blocks(
  count: int, per_device: int
) -> Iterator[tuple[Int[np.ndarray, ' C'], Bool[np.ndarray, ' C']]]:
  """Splits range(count) into blocks of equal length: (indices_C, real_C).

  Args:
    count: how many there are; none are no block.
    per_device: at most so many of a block on each device.
  """
  number = len(jax.devices())
  length = number * min(per_device, max(-(-count // number), 1))
  for start in range(0, count, length):
    indices_C = np.arange(start, start + length)
    yield np.minimum(indices_C, count - 1), indices_C < count


def one_late(items: Iterable[T]) -> Iterator[T]:
  """Yields each once the next is under way.

  The devices compute that while the host reads this.
  """
  waiting: list[T] = []
  for item in items:
    waiting.append(item)
    if len(waiting) == 2:
      yield waiting.pop(0)
  yield from waiting


def together(iterators: Sequence[Iterator[T]]) -> Iterator[T]:
  """Yields what each has, in turns; the next ones are made meanwhile.

  Each has a thread. Programs that one thread starts follow each other without
  a gap, and those of two fill the cores that either leaves idle. Not with
  several processes, which must start programs in one order.
  """
  if jax.process_count() > 1:
    yield from itertools.chain(*iterators)
    return
  end = object()
  # Threads start with the default precision, whatever is set here.
  wide = jax.numpy.result_type(float) == jax.numpy.float64

  def advance(iterator: Iterator[T]) -> T | object:
    with jax.enable_x64(wide):
      return next(iterator, end)

  with contextlib.ExitStack() as stack:
    waiting = collections.deque()
    for iterator in iterators:
      thread = stack.enter_context(ThreadPoolExecutor(1))
      waiting.append((thread, iterator, thread.submit(advance, iterator)))
      # The first alone: the others find what it has compiled.
      futures.wait([waiting[0][-1]])
    while waiting:
      thread, iterator, future = waiting.popleft()
      item: Any = future.result()
      if item is not end:
        waiting.append((thread, iterator, thread.submit(advance, iterator)))
        yield item
