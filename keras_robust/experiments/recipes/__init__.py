"""Recipes: their fields, and the parts that are built from them."""
