"""Draws a plan: as text for a terminal, as Mermaid, DOT or SVG. Pure functions from a plan to a string."""

from parallelizer.rendering.dot import to_dot
from parallelizer.rendering.mermaid import to_mermaid
from parallelizer.rendering.svg import to_svg
from parallelizer.rendering.text import to_text

#: By the name that a person asks for.
RENDERERS = {"text": to_text, "mermaid": to_mermaid, "dot": to_dot, "svg": to_svg}

__all__ = ["RENDERERS", "to_dot", "to_mermaid", "to_svg", "to_text"]
