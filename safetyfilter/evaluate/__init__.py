"""How well scores, thresholds and the rule do on labelled samples: metrics with intervals, and displays."""
