"""Pseudo-healthy synthesis: a scan with disease goes in, the same person's scan without it comes out.

Data flows through the rooms in one direction:
`scans` → `preprocessing` → `methods` and `training` → bundle → `synthesis` → `metrics` → `reports`.
"""

__version__ = "0.1.0"
# What every table, record and report says.
RESEARCH_ONLY = "Research use only, not for diagnosis."
