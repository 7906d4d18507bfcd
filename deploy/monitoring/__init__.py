"""Dashboards and alert rules, declared once; `python deploy/generate.py` writes the files."""
