"""Training on certified bounds: the parts that its defenses share."""
