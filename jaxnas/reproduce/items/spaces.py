"""The spaces of the paper's tables: their titles and configs."""

CONFIGS = {'pooling': 'pooling', 'nas_bench_macro': 'macro'}
TITLES = {'pooling': 'Pooling', 'nas_bench_macro': 'NAS-Bench-Macro'}
