"""Programs that export a model, calibrate its detector, verify, serve and query it."""
