"""Programs that export a model, serve it, and query it: `export`, `serve`, `query`, `verify`."""
