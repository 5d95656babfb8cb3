"""Ground truth: what architectures reach when they are trained alone."""

from jaxnas.tables.table import Table as Table
from jaxnas.tables.table import dump as dump
from jaxnas.tables.table import from_seeds as from_seeds
from jaxnas.tables.table import load as load
from jaxnas.tables.table import shipped as shipped
