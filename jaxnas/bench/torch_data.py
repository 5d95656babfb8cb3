"""Batches from PyTorch's DataLoader, with the augmentation that ours have.

Workers make whole batches of bytes; scaling is left to the device, which gets
a quarter of what floats would take.
"""

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, get_worker_info

from jaxnas import data
from jaxnas.bench import data as bench_data
from jaxnas.bench import torch_step
from jaxnas.data import crops
from jaxnas.data.encoded import Encoded

# Images of a loader whose end is never reached: an epoch of ImageNet is long
# enough for what happens between two not to count.
WITHOUT_END = 2**40


def theirs_photos(
  *, photos: int, size: int, batch_size: int, workers: int, seed: int
) -> Callable[[], float]:
  """Makes the same crops and mirrors of the same files as ours."""
  torch_step.use_pinned_cores()
  folder = bench_data.write_photos(photos, seed)
  loaded: Any = data.load('imagenet', folder.name, size=size, workers=workers)
  loader = batches(
    Photos(loaded.train, size, seed),
    loaded.mean_C,
    loaded.std_C,
    batch_size=batch_size,
    workers=workers,
    device=torch_step.best_device(),
  )
  return bench_data.rate(
    bench_data.while_used(folder, loader),
    batch_size,
    workers,
    lambda _: torch_step.wait(),
  )


def theirs_cifar(
  *, images: int, batch_size: int, workers: int, seed: int
) -> Callable[[], float]:
  """Crops each batch as one, in a worker."""
  torch_step.use_pinned_cores()
  source = bench_data.noise(images, seed)
  loader = batches(
    Resident(source.x_train, source.y_train, bench_data.PADDING, seed),
    source.mean_C,
    source.std_C,
    batch_size=batch_size,
    workers=workers,
    device=torch_step.best_device(),
  )
  return bench_data.rate(
    loader, batch_size, max(8, workers), lambda _: torch_step.wait()
  )


class Photos(Dataset):
  """Random resized crops, mirrored half of the time.

  With the calls of PIL that torchvision makes for it.
  """

  def __init__(self, source: Encoded, size: int, seed: int):
    self.source, self.size = source, size
    self.rng = np.random.default_rng(seed)

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> tuple[UInt8[Tensor, 'H W C'], int]:
    image = crops.decode(self.source.read(index))
    x_HxWxC = crops.random_resized_crop(image, self.rng, self.size, flip=True)
    # PIL's memory is not to be written to.
    return torch.from_numpy(x_HxWxC.copy()), int(self.source.labels_N[index])


class Resident(Dataset):
  """Images in memory, cropped from black padding and mirrored, by batches."""

  def __init__(
    self,
    x_NxHxWxC: UInt8[np.ndarray, 'N H W C'],
    y_N: Int[np.ndarray, ' N'],
    crop_padding: int,
    seed: int,
  ):
    pad = (crop_padding, crop_padding)
    padded = np.pad(x_NxHxWxC, ((0, 0), pad, pad, (0, 0)))
    self.padded, self.y_N = torch.from_numpy(padded), torch.from_numpy(y_N)
    self.shape, self.places = x_NxHxWxC.shape[1:3], 2 * crop_padding + 1
    self.rng = np.random.default_rng(seed)

  def __len__(self) -> int:
    return len(self.y_N)

  def __getitems__(
    self, indices: list[int]
  ) -> tuple[UInt8[Tensor, 'B H W C'], Int[Tensor, ' B']]:
    """Returns a whole batch: PyTorch calls it where a data set has it."""
    chosen_B, (height, width) = torch.tensor(indices), self.shape
    corners_Bx2 = self.rng.integers(self.places, size=(len(indices), 2))
    rows_BxH = corners_Bx2[:, :1] + np.arange(height)
    columns_BxW = corners_Bx2[:, 1:] + np.arange(width)
    mirrored_B = self.rng.random(len(indices)) < 0.5
    columns_BxW[mirrored_B] = columns_BxW[mirrored_B, ::-1]
    x_BxHxWxC = self.padded[
      chosen_B[:, None, None],
      torch.from_numpy(rows_BxH)[:, :, None],
      torch.from_numpy(columns_BxW)[:, None, :],
    ]
    return x_BxHxWxC, self.y_N[chosen_B]


def batches(
  dataset: Photos | Resident,
  mean_C: Float[np.ndarray, ' C'],
  std_C: Float[np.ndarray, ' C'],
  *,
  batch_size: int,
  workers: int,
  device: str,
) -> Generator[tuple[Float[Tensor, 'B C H W'], Int[Tensor, ' B']]]:
  """Normalised images in channels-last memory and labels, without end.

  Args:
    dataset: shuffled anew every epoch.
    mean_C: of pixels, in [0, 1].
    std_C: of pixels, in [0, 1].
    batch_size: B.
    workers: processes; 0 for this one.
    device: where the batches are to be.
  """
  several: dict[str, Any] = {
    # Safe where the process has threads, as it has on a GPU.
    'multiprocessing_context': 'forkserver',
    'prefetch_factor': 2,
    'worker_init_fn': _seed,
  }
  loader = DataLoader(
    dataset,
    batch_size,
    sampler=RandomSampler(dataset, num_samples=WITHOUT_END),
    num_workers=workers,
    collate_fn=_whole if isinstance(dataset, Resident) else None,
    pin_memory=device == 'cuda',
    drop_last=True,
    **(several if workers else {}),
  )
  mean = _moment(mean_C, device)
  scale = 1 / _moment(std_C, device)
  for x_BxHxWxC, y_B in loader:
    x = x_BxHxWxC.to(device, non_blocking=True).permute(0, 3, 1, 2)
    yield x.float().sub_(mean).mul_(scale), y_B.to(device, non_blocking=True)


def _moment(
  moment_C: Float[np.ndarray, ' C'], device: str
) -> Float[Tensor, 'C 1 1']:
  """Scales a moment of pixels in [0, 1] to one of bytes."""
  of_bytes_C = torch.tensor(255 * moment_C, dtype=torch.float32, device=device)
  return of_bytes_C[:, None, None]


def _whole(batch: Any) -> Any:
  return batch


def _seed(worker: int) -> None:
  """Workers would otherwise all draw the same crops."""
  info: Any = get_worker_info()
  info.dataset.rng = np.random.default_rng(info.seed)
