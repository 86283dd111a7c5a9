"""Pseudo-healthy synthesis: a scan with disease goes in, the same person's scan without it comes out.

Data flows through the rooms in one direction:
`scans` → `preprocessing` → `methods` → `training` → `bundles` → `inference` → `evaluation` → `reports`.
"""

__version__ = "0.1.0"
# What every table, record and report says.
RESEARCH_ONLY = "Research use only, not for diagnosis."

# Of the training of the segmentor that judges healthiness, where nobody asks for another number.
JUDGE_ITERATIONS = 600
