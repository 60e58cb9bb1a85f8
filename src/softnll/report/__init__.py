"""A page about what a classifier's scores say: one file, no script, nothing fetched."""

from __future__ import annotations

from softnll.report.page import Report, render

__all__ = ["Report", "render"]
