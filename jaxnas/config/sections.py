"""The sections of an experiment: frozen and flat.

Fields that the chosen method does not use are refused when set, and off is
`None`.
"""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Data:
  """The images and how they are prepared."""

  name: str = 'digits'
  """digits (embedded), cifar10, cifar100, imagenet16_120, imagenet (streamed
  from its files), or arrays (an npz of your own)."""
  dir: str | None = None
  """Where the images are: what `jaxnas.prepare` wrote, or the npz."""
  train_fraction: float | None = 0.5
  """Share of the training images to train on; the others are validation."""
  holdout: int | None = None
  """Validation images of each class; replaces train_fraction."""
  batch_size: int = 64
  """Images in a training step."""
  crop_padding: int = 0
  """Pixels of zero padding around the image before a random crop."""
  flip: bool = False
  """Mirror half of the training images."""
  size: int = 224
  """Of imagenet: height and width to which images are cropped."""
  workers: int = 4
  """Of imagenet: processes that decode images; 0 for threads."""
  on_error: Literal['raise', 'skip'] = 'raise'
  """Of imagenet: stop at an unreadable image, or replace and count it."""


@dataclasses.dataclass(frozen=True)
class Supernet:
  """The shared weights."""

  affine: bool = False
  """Give batch normalisation a scale and a bias, shared as the weights are."""
  bn_running: bool = False
  """Keep running statistics of batch normalisation beside the weights, for
  ranking.bn running; training does not use them."""
  bn_groups: int = 1
  """Equal parts of a training batch that are normalised each alone. With as
  many as a path has devices, none waits for another's statistics."""
  activation: Literal['relu', 'relu6', 'hard_swish'] | None = None
  """Of MB blocks; None: the space's own (mobilenet: hard_swish)."""


@dataclasses.dataclass(frozen=True)
class Sampler:
  """Which architectures a training step uses."""

  name: str = 'uniform'
  """The proposal that debiasing multiplies: uniform, fair, boltzmann,
  importance, novelty, tree or mixture."""
  variant: (
    Literal[
      'both',
      'path',
      'data',
      'default',
      'prioritized',
      'iterative',
      'hierarchical',
    ]
    | None
  ) = None
  """Of importance: both (if None), path or data. Of tree: default (if None),
  prioritized, iterative or hierarchical."""
  paths: int = 1
  """Architectures in a step; their gradients are summed. fair has as many as a
  position has ops: leave it at 1."""
  budget: Literal['steps', 'paths'] = 'steps'
  """An epoch is a step for every batch of images, or has so many fewer steps
  as a step has paths: as many path-gradients whatever the sampler."""
  cost_bins: int | None = None
  """Of uniform: draw one of so many bins of multiply-adds first."""
  rebuilds: int | None = None
  """Of tree, iterative and hierarchical: how often the tree is built, first
  after the warm-up and then at even intervals. None: 4 and 1."""
  members: int = 2
  """Of mixture: supernets, each as large as the one of other samplers."""
  reward_every: int = 1
  """Of boltzmann, tree and mixture: steps from one with a validation batch to
  the next."""


@dataclasses.dataclass(frozen=True)
class Debias:
  """P(arch) times exp(-density / temperature) after the warm-up (eq. 8).

  At most one of the two is set; with neither, training stays undebiased.
  """

  temperature: float | None = None
  """Temperature on the scale of this run's densities."""
  effective_fraction: float | None = None
  """Solve for the temperature at which 1/sum P^2 is this share of what it is
  undebiased: of the space, where the proposal is uniform."""
  baseline: bool = False
  """Also train without debiasing from the same warm-up, and print both."""
  candidates: int = 16
  """Draws of which a path takes one, where densities come from prototypes."""


@dataclasses.dataclass(frozen=True)
class Density:
  """How densely the gradients of other architectures surround one's own."""

  file: str | None = None
  """A saved density.npz to use instead of estimating one."""
  measure: Literal['gradient', 'representational', 'functional', 'encoding'] = (
    'gradient'
  )
  """What is compared between architectures: gradients (cosine), what layers
  receive (CKA), outputs, or the architectures' own encodings (Hamming)."""
  estimator: Literal['inverse_mean_distance', 'kde', 'prototypes'] = (
    'inverse_mean_distance'
  )
  """From distances to a density: eq. 6, a Gaussian kernel, or prototypes of
  the gradients of training, for spaces too large to list."""
  tensors: str | None = None
  """authors, early, deep, shared, all, or regular expressions over parameter
  paths, separated by commas. None: what the space's supernet declares."""
  combine: Literal['mean', 'concatenate'] = 'mean'
  """Cosine distance per weight tensor then mean, or of all tensors as one."""
  absent: Literal['zero', 'skip'] = 'zero'
  """A tensor that one of two architectures lacks: distance 1, or left out."""
  layers: str | None = None
  """Of representational: layers whose input is compared, separated by commas.
  None: the last that the space's supernet declares."""
  unbiased: bool = False
  """Of representational: estimate HSIC without bias, batch by batch."""
  outputs: Literal['l2', 'kl', 'cosine'] = 'l2'
  """Of functional: the distance between probabilities."""
  bandwidth: float | None = None
  """Of kde: the kernel's width; None: the median distance of a pair."""
  prototypes: int = 64
  """Of prototypes: clusters of gradients."""
  lookup: Literal['linear', 'nearest'] = 'linear'
  """Of prototypes: densities from a fit to all architectures visited, or from
  those nearest in encoding distance."""
  scale: Literal['raw', 'std'] = 'raw'
  """The density as it is, or divided by its standard deviation."""
  batches: int = 1
  """Held-out batches whose mean loss is differentiated."""
  batch_size: int = 256
  """Images in a held-out batch: the first ones of a fixed shuffle."""
  refresh_epochs: int | None = None
  """Estimate again every so many epochs; None: once, after the warm-up."""
  log_epochs: int | None = None
  """Write densities and distances to density_log.npz every so many epochs,
  from the first; the sampler does not see them. None: never."""
  memory_gb: float = 2.0
  """Gradients beyond this size are computed twice instead of stored."""


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """SGD as PyTorch defines it: coupled decay, cosine learning rate."""

  peak_lr: float = 0.1
  """Learning rate after its own warm-up."""
  floor_lr: float = 0.0
  """Learning rate at the end of the cosine."""
  momentum: float = 0.9
  """Momentum, without dampening."""
  nesterov: bool = False
  """Nesterov's momentum."""
  weight_decay: float = 0.0
  """Added to the gradient before the momentum."""
  decay: Literal['all', 'weights'] = 'all'
  """What decays; weights: neither biases nor batch normalisation."""
  label_smoothing: float = 0.0
  """Share of a label's weight that all classes get alike."""
  clip_norm: float | None = None
  """Largest global norm of the gradient."""
  lr_warmup_steps: int = 0
  """Steps in which the learning rate rises linearly to its peak."""
  schedule: Literal['step', 'epoch'] = 'step'
  """Follow the cosine every step, or every epoch as older code does."""
  freeze_unused: bool = True
  """Leave ops that a step did not use exactly as they are."""


@dataclasses.dataclass(frozen=True)
class Ranking:
  """Which architectures are ranked at the end, and on what."""

  split: Literal['validation', 'test'] = 'validation'
  """The images that rank; training never saw them."""
  images: int | None = None
  """How many of them, the same for every architecture; None: all."""
  archs: int | None = None
  """How many architectures, drawn with a fixed seed; None: all."""
  batch_size: int = 500
  """Images in a batch, which are also what batch normalisation averages."""
  bn: Literal['batch', 'recalibrate', 'running'] = 'batch'
  """Statistics of batch normalisation: of the batch (the authors' habit), of
  each architecture on training batches (SPOS), or running ones."""
  calibration_batches: int | None = None
  """Of bn recalibrate: how many, of data.batch_size images, each counting
  alike. None: 20, or as many as there are."""
  every_epochs: int | None = None
  """Rank some architectures every so many epochs and at the end, and write
  the correlation with the truth to metrics.jsonl. None: never."""
  sample: int = 100
  """Of every_epochs: how many, the same ones along a run."""


@dataclasses.dataclass(frozen=True)
class Mesh:
  """How training is laid over devices; results do not depend on it."""

  data: int = 1
  """Devices that share the batch of a path."""
  paths: int = 1
  """Groups of such devices, each of which trains its share of a step's
  architectures."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """How much an interruption can cost."""

  every_epochs: int = 1
  """Epochs between checkpoints."""
  every_minutes: float | None = None
  """Save besides, within an epoch, where the last one is so old."""
  keep: int = 2
  """Newest ones to keep; the one at the end of the warm-up always stays."""
  on_error: Literal['raise', 'skip'] = 'raise'
  """Where one cannot be written, as on a full disk: stop, or warn and train on
  to the next. The last one of a run must be written."""


@dataclasses.dataclass(frozen=True)
class Logging:
  """What a run tells while it goes on."""

  every_steps: int = 50
  """Steps that a row of metrics.jsonl averages."""
  tensorboard: bool = False
  """Write the same numbers for TensorBoard."""
  wandb: bool = False
  """Write the same numbers to Weights & Biases."""


@dataclasses.dataclass(frozen=True)
class Retrain:
  """Training architectures alone, from scratch."""

  epochs: int = 50
  """Epochs of each."""
  seeds: int = 3
  """Runs of each, with other weights and other batches."""
  ema_decay: float | None = None
  """Test a moving average of the weights that keeps this share a step."""
