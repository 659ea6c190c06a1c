"""What only a machine with an NVIDIA card can show, in thirteen steps. Run `benchmarks/gpu_check.sh`."""
