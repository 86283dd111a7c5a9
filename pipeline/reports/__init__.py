"""Tables and pictures; no metric is computed here."""
