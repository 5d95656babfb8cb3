"""Ground truth: accuracies of architectures that were trained alone."""

from jaxnas.truth.table import Table as Table
from jaxnas.truth.table import dump as dump
from jaxnas.truth.table import find as find
from jaxnas.truth.table import from_seeds as from_seeds
from jaxnas.truth.table import load as load
from jaxnas.truth.table import shipped as shipped
