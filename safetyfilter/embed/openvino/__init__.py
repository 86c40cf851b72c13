"""OpenVINO: image towers converted from torch's, and run on the processor."""
