"""Training of models. Needs the extra `train`: torch, safetensors, Pillow, matplotlib, fonts.

recipe                          what a run makes, as TOML
degrade, scenes, screen, ...    large pictures to small ones as real files show them
prepare, store                  the training data on disk: writing, drawing batches
loop, muon, machine             the training itself
weights, record, run            what a run begins with and leaves behind
"""
