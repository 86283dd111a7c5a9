"""From scans to network input, and the way back."""
