"""Samplers: they choose the architectures of each training step.

A sampler is a tuple of pure, jit-able functions over a pytree of state. A new
one is a file and a line in `jaxnas.config.registry`: a function (space, *, ...)
-> Sampler. Its signature names what it needs of `paths`, `steps_per_epoch`,
`epochs`, `warmup_steps`, `steps`, `clip_norm` and the options of the config's
sampler section.

Samplers wrap each other: `debiased` and `among_candidates` wrap any proposal,
and `mixture` wraps what they return.
"""

from jaxnas.samplers.base import Debiasing as Debiasing
from jaxnas.samplers.base import Feedback as Feedback
from jaxnas.samplers.base import Measurements as Measurements
from jaxnas.samplers.base import Sampler as Sampler
from jaxnas.samplers.base import counter as counter
from jaxnas.samplers.base import paths as paths
from jaxnas.samplers.boltzmann import boltzmann as boltzmann
from jaxnas.samplers.candidates import CandidatesState as CandidatesState
from jaxnas.samplers.candidates import among_candidates as among_candidates
from jaxnas.samplers.candidates import listed_densities as listed_densities
from jaxnas.samplers.candidates import (
  predicted_densities as predicted_densities,
)
from jaxnas.samplers.debiased import DebiasedState as DebiasedState
from jaxnas.samplers.debiased import debiased as debiased
from jaxnas.samplers.debiased import describe as describe
from jaxnas.samplers.debiased import with_density as with_density
from jaxnas.samplers.fair import fair as fair
from jaxnas.samplers.fixed import fixed as fixed
from jaxnas.samplers.importance import importance as importance
from jaxnas.samplers.mixture import MixtureState as MixtureState
from jaxnas.samplers.mixture import archs_state as archs_state
from jaxnas.samplers.mixture import mixture as mixture
from jaxnas.samplers.novelty import novelty as novelty
from jaxnas.samplers.rules import Evidence as Evidence
from jaxnas.samplers.rules import Factor as Factor
from jaxnas.samplers.rules import Rule as Rule
from jaxnas.samplers.rules import effective_number as effective_number
from jaxnas.samplers.rules import solve_temperature as solve_temperature
from jaxnas.samplers.tree import tree as tree
from jaxnas.samplers.uniform import uniform as uniform
