"""The night on one page: collected alert by alert in bounded memory, drawn once at the end."""

from rbstream.report.collect import Label, ReportData
from rbstream.report.page import Summary, write_report

__all__ = ["Label", "ReportData", "Summary", "write_report"]
