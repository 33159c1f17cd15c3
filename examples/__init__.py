"""Examples: percent scripts, which editors and Jupyter (with jupytext) open as notebooks."""
