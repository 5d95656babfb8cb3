"""The sections of an experiment: frozen and flat.

A field's range, and the option that it belongs to, stand beside it. Fields
that the chosen method does not use are refused when set, and off is `None`.
"""

import dataclasses
from typing import Annotated, Literal

from annotated_types import Interval

from jaxnas.config.fields import (
  LARGEST,
  MANY,
  MOST,
  Count,
  CountOrNone,
  Few,
  Natural,
  NotNegative,
  Options,
  PathOrNone,
  PositiveOrNone,
  Share,
  UsedWith,
  make_absolute,
)
from jaxnas.config.registry import DATASETS, OPTIMIZERS

# Means that kept all would never move.
LARGEST_BETA = 0.99999


@dataclasses.dataclass(frozen=True)
class Data:
  """The images and how they are prepared."""

  name: Annotated[str, DATASETS] = 'digits'
  """Data set: digits (embedded), cifar10, cifar100, imagenet16_120, imagenet
  (streamed from its files), or arrays (an npz of your own)."""
  dir: PathOrNone = None
  """Folder of the images, as `jaxnas.prepare` wrote it, or the npz."""
  train_fraction: Annotated[float | None, Interval(gt=0, le=1)] = 0.5
  """Share of the training images to train on; the others are validation."""
  holdout: CountOrNone = None
  """Validation images of each class; replaces train_fraction."""
  split_seed: Annotated[int | None, Interval(ge=0, le=2**32 - 1)] = None
  """Seed of the division of images, and of the images and architectures that
  are ranked; None: the run's seed."""
  batch_size: Count = 64
  """Images in a training step."""
  crop_padding: Natural = 0
  """Pixels of zero padding around the image before a random crop."""
  flip: bool = False
  """Mirror half of the training images."""
  augment: str | None = None
  """A function of your own, module:function, that changes training images after
  crop and flip: (key, images_BxHxWxC) -> images of that shape, pure and in jit.
  They are floats, 0 to 1 where the data set has bytes. See --trust_module."""
  size: Annotated[
    int, Interval(ge=8, le=8192), UsedWith('name', 'imagenet')
  ] = 224
  """Height and width to which imagenet is cropped."""
  workers: Annotated[
    int, Interval(ge=0, le=4096), UsedWith('name', 'imagenet')
  ] = 4
  """Processes that decode imagenet; 0 for threads."""
  on_error: Annotated[
    Literal['raise', 'skip'], UsedWith('name', 'imagenet')
  ] = 'raise'
  """Stop at an unreadable image of imagenet, or replace and count it."""
  options: Options = None
  """Options of a data set that was registered from outside."""

  def __post_init__(self) -> None:
    make_absolute(self)


@dataclasses.dataclass(frozen=True)
class Supernet:
  """The shared weights."""

  affine: bool = False
  """Give batch normalisation a scale and a bias, shared as the weights are."""
  bn_running: bool = False
  """Keep running statistics of batch normalisation beside the weights, for
  ranking.bn running; training does not use them."""
  bn_groups: Count = 1
  """Equal parts of a training batch that are normalised each alone. With as
  many as a path has devices, none waits for another's statistics."""
  activation: Literal['relu', 'relu6', 'hard_swish'] | None = None
  """Activation of MB blocks; None: the space's own (mobilenet: hard_swish)."""


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """Optimizer, learning rate and loss."""

  name: Annotated[str, OPTIMIZERS] = 'sgd'
  """Optimizer, each as PyTorch defines it: sgd, or adamw."""
  peak_lr: NotNegative = 0.1
  """Learning rate after its own linear rise; adamw takes about 0.001."""
  floor_lr: NotNegative = 0.0
  """Learning rate at the end of the cosine."""
  momentum: Annotated[Share, UsedWith('name', 'sgd')] = 0.9
  """Momentum, without dampening."""
  nesterov: Annotated[bool, UsedWith('name', 'sgd')] = False
  """Nesterov's momentum."""
  beta1: Annotated[
    float, Interval(ge=0, le=LARGEST_BETA), UsedWith('name', 'adamw')
  ] = 0.9
  """Share of its mean that a step of the gradient keeps."""
  beta2: Annotated[
    float, Interval(ge=0, le=LARGEST_BETA), UsedWith('name', 'adamw')
  ] = 0.999
  """Share of its mean that a step of the squared gradient keeps."""
  epsilon: Annotated[
    float, Interval(gt=0, le=LARGEST), UsedWith('name', 'adamw')
  ] = 1e-8
  """Added to the root of the squared gradient, by which adamw divides."""
  weight_decay: NotNegative = 0.0
  """Added to the gradient before the momentum (sgd), or taken off the weights,
  times the learning rate (adamw)."""
  decay: Literal['all', 'weights'] = 'all'
  """Decay all parameters, or weights alone: neither biases nor batch
  normalisation."""
  label_smoothing: Share = 0.0
  """Share of a label's weight that all classes get alike."""
  loss: str | None = None
  """A loss of your own, module:function: (logits_BxK, target_BxK) -> losses_B,
  pure and in jit; targets are weights of classes with a sum of 1. None:
  cross-entropy. See --trust_module."""
  distill: Annotated[float | None, Interval(gt=0, le=1)] = None
  """Also train the architecture with most multiply-adds in every step, by
  labels; this share of the others' targets is its softmax, the rest labels.
  1 is BigNAS's in-place distillation. None: all learn from labels alone."""
  clip_norm: PositiveOrNone = None
  """Largest global norm of the gradient."""
  lr_warmup_steps: Natural = 0
  """Steps in which the learning rate rises linearly to its peak."""
  cycles: Few = 1
  """Cosines of equal length, one after the other; it divides the epochs."""
  schedule: Literal['step', 'epoch'] = 'step'
  """Follow the cosine every step, or every epoch as older code does."""
  freeze_unused: bool = True
  """Leave ops that a step did not use exactly as they are."""
  ema_decay: Annotated[float | None, Interval(ge=0, le=1)] = None
  """Keep a moving average of a supernet's weights as well, of which this share
  stays a step, for ranking.average ema; training does not use it."""
  options: Options = None
  """Options of an optimizer that was registered from outside."""


@dataclasses.dataclass(frozen=True)
class Ranking:
  """The ranking at the end: its architectures and images."""

  split: Literal['validation', 'test'] = 'validation'
  """The images that rank; training never saw them."""
  images: CountOrNone = None
  """Number of images, the same ones for every architecture; None: all."""
  archs: Annotated[int | None, Interval(ge=2, le=MOST)] = None
  """Number of architectures, drawn with a fixed seed; None: all."""
  batch_size: Annotated[int, Interval(ge=2, le=MOST)] = 500
  """Images in a batch, which are also those that batch normalisation
  averages."""
  bn: Literal['batch', 'recalibrate', 'running'] = 'batch'
  """Statistics of batch normalisation: of the batch (the authors' habit), of
  each architecture on training batches (SPOS), or running ones."""
  calibration_batches: Annotated[CountOrNone, UsedWith('bn', 'recalibrate')] = (
    None
  )
  """Batches, of data.batch_size images, that recalibration averages, each
  counting alike. None: 20, or as many as there are."""
  average: Literal['last', 'ema', 'weights', 'scores'] = 'last'
  """Rank by the weights at the end (last), by their moving average (ema), by
  the mean of the weights of some snapshots (weights), or by the mean of the
  scores under each of them (scores)."""
  snapshots: Annotated[
    int, Interval(ge=2, le=MANY), UsedWith('average', 'weights', 'scores')
  ] = 4
  """Checkpoints that are averaged, the one at the end among them."""
  snapshot_epochs: Annotated[
    CountOrNone, UsedWith('average', 'weights', 'scores')
  ] = None
  """Epochs from one snapshot to the next. None: those of a cosine, or where
  that is the whole run, a tenth of it."""
  combine: str | None = None
  """Steps that make a better ranking of the accuracies without labels,
  separated by commas: canonical (mean of strings that are one network),
  additive (sum of what ops add, where that predicts held-out images better),
  extend (to the whole space from ranking.archs), macs, params, log_macs or
  log_params (fusion with a cost by its ranks). The ranking by accuracies alone
  stands beside it."""
  every_epochs: CountOrNone = None
  """Rank some architectures every so many epochs and at the end: their
  accuracies go to ranking_log.npz, and their mean and, where there is a table,
  the correlation with the truth to metrics.jsonl. None: never."""
  sample: Annotated[int, Interval(ge=2, le=MOST)] = 100
  """Number of architectures that every_epochs ranks, the same along a run."""

  @property
  def steps(self) -> list[str]:
    """The names in `combine`."""
    return self.combine.split(',') if self.combine else []


@dataclasses.dataclass(frozen=True)
class Mesh:
  """The devices that training is laid over; results do not depend on it."""

  data: Few = 1
  """Devices that share the batch of a path."""
  paths: Few = 1
  """Groups of such devices, each of which trains its share of a step's
  architectures."""
  members: CountOrNone = None
  """Members of an ensemble that are trained at once, on a device each. None: as
  many as there are devices for; one after the other where data or paths are
  above 1, or where processes are several."""
  steps_per_dispatch: CountOrNone = None
  """Steps of one program, which the host starts at once. It divides the steps
  of an epoch and logging.every_steps. None: 1 on CPUs, where one is faster, and
  for streamed images; else as many as divide them."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """Checkpoints, which say how much an interruption can cost."""

  every_epochs: Count = 1
  """Epochs between checkpoints."""
  every_minutes: PositiveOrNone = None
  """Save besides, within an epoch, where the last one is so old."""
  keep: Count = 2
  """Newest ones to keep; the one at the end of the warm-up always stays."""
  on_error: Literal['raise', 'skip'] = 'raise'
  """Stop where one cannot be written, as on a full disk, or warn and train on
  to the next. The last one of a run must be written."""


@dataclasses.dataclass(frozen=True)
class Logging:
  """The numbers that a run tells while it goes on."""

  every_steps: Count = 50
  """Steps that a row of metrics.jsonl averages."""
  tensorboard: bool = False
  """Write the same numbers for TensorBoard."""
  wandb: bool = False
  """Write the same numbers to Weights & Biases."""
  project: str = 'jaxnas'
  """Project of Weights & Biases."""
  entity: str | None = None
  """Its user or team; None: the account's own."""
  name: str | None = None
  """The run's name; None: its folder's. A twin, a sampler or a seed has its own
  folder's behind it."""
  group: str | None = None
  """Group of runs; None: those of one command."""
  tags: str | None = None
  """Tags, separated by commas."""


@dataclasses.dataclass(frozen=True)
class Retrain:
  """Training architectures alone, from scratch."""

  epochs: Count = 50
  """Epochs of each."""
  seeds: Count = 3
  """Runs of each, with other weights and other batches."""
  ema_decay: Annotated[float | None, Interval(ge=0, le=1)] = None
  """Test a moving average of the weights that keeps this share a step."""
