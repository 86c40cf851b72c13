"""Encoded images -> matches on lists of known content: cryptographic digests, PDQ hashes, digests of URLs."""
