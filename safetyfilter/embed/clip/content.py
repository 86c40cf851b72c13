"""Files that came in the place of weights: pointers, web pages and the like, known by their first bytes."""

from __future__ import annotations

HEAD_BYTES = 4096
"""Bytes from a file's beginning that are enough to know it."""


def other_content(head: bytes) -> str | None:
    """Return the kind of a file that holds no weights and what to do about it, by its first bytes; None for others.

    >>> other_content(b"version https://git-lfs.github.com/spec/v1")
    'a Git LFS pointer, not the file itself; run `git lfs pull` in its folder, or download the file'
    >>> other_content(b"PK")
    """
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:256].lower()
    if not head:
        return "empty; download or copy it again"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself; run `git lfs pull` in its folder, or download the file"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return "a saved web page, such as an error's, not the file itself; download it again"
    if start.startswith((b"{", b"[")):
        return "a JSON file, not weights; give the file of the weights themselves"
    return None
