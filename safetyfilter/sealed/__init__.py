"""Sealed records: what the designated reporter needs of an exclusion, encrypted to the officer's public key."""
