"""Shared parts of attacks: base class, crafting loop, objectives, step rules, initialization."""
