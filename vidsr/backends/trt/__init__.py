"""TensorRT: plans made, kept and run."""
