"""How densely the gradients of other architectures surround one's own."""

from jaxnas.density.distances import (
  mean_cosine_distance as mean_cosine_distance,
)
from jaxnas.density.estimate import Density as Density
from jaxnas.density.estimate import gradient_density as gradient_density
from jaxnas.density.estimate import load as load
from jaxnas.density.estimate import save as save
from jaxnas.density.estimators import (
  inverse_mean_distance as inverse_mean_distance,
)
from jaxnas.density.features import select as select
