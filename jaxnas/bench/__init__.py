"""Benchmarks: each measures jaxnas and a rival side by side."""
