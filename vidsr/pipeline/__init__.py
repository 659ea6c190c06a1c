"""The pipeline: stages in threads, joined by a fixed number of slots."""

from vidsr.pipeline.aside import aside
from vidsr.pipeline.stage import Pipeline, PipelineSpec, Reader
from vidsr.pipeline.transfer import Totals, transfer

__all__ = ["Pipeline", "PipelineSpec", "Reader", "Totals", "aside", "transfer"]
