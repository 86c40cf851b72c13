"""The image tower in int8: quantised on pictures of the user's own, kept in the cache, run by OpenVINO."""
