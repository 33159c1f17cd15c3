"""Rendering of reports as JSON, Markdown and HTML."""
