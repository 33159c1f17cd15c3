"""Evaluation of attacks on several tasks: success rates, and conflicts between gradients."""
