"""Sealed records: what the designated reporter needs of an exclusion, encrypted to the officer's public key.

A machine that scans has the public key alone and can't read back what it writes, so that the records are not a list of
samples to whoever scans. Without a key nothing of the kind is written. Opened, they hold no score and are not ranked.
"""
