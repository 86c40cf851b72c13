"""Stages for other frameworks' pipelines: NeMo Curator, Data-Juicer, datatrove; each module needs its framework."""
