"""open_clip's models: names and origins, configurations, weights, towers, tokens and preprocessing."""
