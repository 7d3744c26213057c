"""Reports for people: results are read from disk and set into one self-contained page."""

from segwright.reporting.page import write_report

__all__ = ["write_report"]
