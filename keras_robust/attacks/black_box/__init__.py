"""Attacks without gradients: they see logits, or the predicted class alone."""
