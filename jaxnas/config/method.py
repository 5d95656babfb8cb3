"""The sections that say which architectures are trained, and how often."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval

from jaxnas.config.fields import (
  LARGEST,
  MANY,
  MOST,
  Count,
  CountOrNone,
  Few,
  Options,
  PathOrNone,
  PositiveOrNone,
  UsedWith,
  make_absolute,
)
from jaxnas.config.registry import MEASURES, RULES, SAMPLERS
from jaxnas.runtime import files


@dataclasses.dataclass(frozen=True)
class Sampler:
  """The sampler, which chooses the architectures of a training step."""

  name: Annotated[str, SAMPLERS] = 'uniform'
  """The proposal that debiasing multiplies: uniform, balanced, fair, boltzmann,
  importance, novelty, tree or mixture."""
  variant: Annotated[
    Literal[
      'both',
      'path',
      'data',
      'default',
      'prioritized',
      'iterative',
      'hierarchical',
    ]
    | None,
    UsedWith('name', 'importance', 'tree'),
  ] = None
  """Variant of importance: both (if None), path or data. Variant of tree:
  default (if None), prioritized, iterative or hierarchical."""
  paths: Few = 1
  """Architectures in a step; their gradients are summed. fair has as many as a
  position has ops: leave it at 1."""
  budget: Literal['steps', 'paths'] = 'steps'
  """Length of an epoch: a step for every batch of images, or so many fewer
  steps as a step has paths, which is as many path-gradients whatever the
  sampler."""
  rebuilds: Annotated[
    CountOrNone, UsedWith('variant', 'iterative', 'hierarchical')
  ] = None
  """Number of times that a tree is built, iterative or hierarchical: first
  after the warm-up and then at even intervals. None: 4 and 1."""
  members: Annotated[
    int, Interval(ge=2, le=MANY), UsedWith('name', 'mixture')
  ] = 2
  """Supernets of a mixture, each as large as the one of other samplers."""
  reward_every: Count = 1
  """Steps from one with a validation batch to the next, for boltzmann, tree
  and mixture."""
  options: Options = None
  """Options of a sampler that was registered from outside."""


@dataclasses.dataclass(frozen=True)
class Debias:
  """P(arch) times exp(-density / temperature) after the warm-up.

  At most one of the first two is set; with neither, training stays undebiased.
  """

  temperature: PositiveOrNone = None
  """Temperature on the scale of this run's densities, or of its mean
  similarities under rule self_consistent."""
  effective_fraction: Annotated[float | None, Interval(gt=0, le=1)] = None
  """Solve for the temperature at which 1/sum P^2 is this share of what it is
  undebiased, which is the whole space where the proposal is uniform."""
  rule: Annotated[str, RULES] = 'eq8'
  """The density that weighs: under uniform sampling (eq8), or under the
  sampling that it leads to itself (self_consistent)."""
  baseline: bool = False
  """Also train without debiasing from the same warm-up, and print both."""
  candidates: Few = 16
  """Draws from which a path takes one, where no architecture's probability is
  known: in spaces too large to list, and with sampler fair."""
  options: Options = None
  """Options of a rule that was registered from outside."""


@dataclasses.dataclass(frozen=True)
class Density:
  """Density: how closely the gradients of others surround an architecture."""

  file: PathOrNone = None
  """A saved density.npz to use instead of estimating one."""
  file_digest: str | None = None
  """The digest of what that file holds. A run writes it down by itself, and
  goes on with the same content alone, wherever it lies."""
  measure: Annotated[str, MEASURES] = 'gradient'
  """Compare architectures by gradient (cosine), representational (CKA of what
  layers receive), functional (outputs) or encoding (Hamming)."""
  estimator: Literal['inverse_mean_distance', 'kde', 'prototypes'] | None = None
  """From distances to a density: eq. 6, a Gaussian kernel, or prototypes of
  some architectures, which predict the others. None: eq. 6, and prototypes
  where the space is too large to list."""
  tensors: Annotated[str | None, UsedWith('measure', 'gradient')] = None
  """Gradients to compare: authors, early, deep, shared, all, or regular
  expressions over parameter paths, separated by commas. None: those that the
  space's supernet declares."""
  combine: Annotated[
    Literal['mean', 'concatenate'], UsedWith('measure', 'gradient')
  ] = 'mean'
  """Cosine distance per weight tensor then mean, or of all tensors as one."""
  absent: Annotated[
    Literal['zero', 'skip'], UsedWith('measure', 'gradient')
  ] = 'zero'
  """A tensor that one of two architectures lacks has distance 1, or is left
  out."""
  layers: Annotated[str | None, UsedWith('measure', 'representational')] = None
  """Layers whose input is compared, separated by commas. None: the last that
  the space's supernet declares."""
  unbiased: Annotated[bool, UsedWith('measure', 'representational')] = False
  """Estimate HSIC without bias, batch by batch."""
  outputs: Annotated[
    Literal['l2', 'kl', 'cosine'], UsedWith('measure', 'functional')
  ] = 'l2'
  """The distance between probabilities."""
  bandwidth: Annotated[PositiveOrNone, UsedWith('estimator', 'kde')] = None
  """The kernel's width; None: the median distance of a pair."""
  prototypes: Annotated[
    int, Interval(ge=2, le=MANY), UsedWith('estimator', 'prototypes', None)
  ] = 64
  """Clusters of the architectures that are measured."""
  archs: Annotated[
    int, Interval(ge=8, le=10_000), UsedWith('estimator', 'prototypes', None)
  ] = 500
  """Number of architectures that are measured for prototypes, drawn with a
  fixed seed; half of a space that has no more."""
  scale: Literal['raw', 'std'] = 'raw'
  """The density as it is, or divided by its standard deviation."""
  batches: Count = 1
  """Held-out batches whose mean loss is differentiated."""
  batch_size: Annotated[int, Interval(ge=2, le=MOST)] = 256
  """Images in a held-out batch: the first ones of a fixed shuffle."""
  refresh_epochs: CountOrNone = None
  """Estimate again every so many epochs; None: once, after the warm-up."""
  log_epochs: CountOrNone = None
  """Write densities and distances to density_log.npz every so many epochs,
  from the first; the sampler does not see them. None: never."""
  memory_gb: Annotated[float, Interval(gt=0, le=LARGEST)] = 2.0
  """Gradients beyond this size are computed twice instead of stored."""
  options: Options = None
  """Options of a measure that was registered from outside."""

  def __post_init__(self) -> None:
    make_absolute(self)
    if self.file is not None and self.file_digest is None:
      # Who needs the file says what is wrong with it.
      with contextlib.suppress(OSError, ValueError):
        holds = files.digest(Path(self.file))
        object.__setattr__(self, 'file_digest', holds)
