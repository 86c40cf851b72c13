"""LAION's detectors as they are published -> probe files: used once for each detector, never in a scan."""
