"""Programs that export a model, serve it, and query it.

`export`, `calibrate` (another threshold for what is exported), `verify`, `serve` and `query`.
"""
