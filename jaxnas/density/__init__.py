"""Densities: how closely other architectures surround each one."""

from jaxnas.density.estimate import Density as Density
from jaxnas.density.estimate import Snapshot as Snapshot
from jaxnas.density.estimate import check_memory as check_memory
from jaxnas.density.estimate import estimate as estimate
from jaxnas.density.estimate import feature_bytes as feature_bytes
from jaxnas.density.estimate import gather as gather
from jaxnas.density.estimate import load as load
from jaxnas.density.estimate import read_file as read_file
from jaxnas.density.estimate import save as save
from jaxnas.density.estimate import streams as streams
from jaxnas.density.estimators import (
  inverse_mean_distance as inverse_mean_distance,
)
from jaxnas.density.estimators import kde as kde
from jaxnas.density.features import in_head as in_head
from jaxnas.density.measures import Measure as Measure
from jaxnas.density.measures import encoding as encoding
from jaxnas.density.measures import functional as functional
from jaxnas.density.measures import gradient as gradient
from jaxnas.density.measures import representational as representational
from jaxnas.density.pairs import condensed as condensed
from jaxnas.density.pairs import matrix as matrix
from jaxnas.density.similarity import Similarity as Similarity
from jaxnas.density.similarity import of_distances as of_distances
from jaxnas.density.similarity import of_matrix as of_matrix
from jaxnas.density.similarity import of_vectors as of_vectors
