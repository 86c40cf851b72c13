"""Attestations: a signed statement that binds a run's data, encoder, probes, policy and decisions together."""
