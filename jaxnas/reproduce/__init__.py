"""The paper's tables and figures, each from the runs that it needs."""
