"""Training of any component, on Hugging Face accelerate: one loop, and learners from plugins.

Read in the order of the data: `recipe` (what the user wrote), `manifest` and `cuts` (the
examples), `cache` (each prepared once), `batches` (by frames), `loop` (one step after the other),
`checkpoints` (saved whole, resumed exactly), `export` (a package to install). `learner` is what a
plugin writes, `spec` how it announces it.
"""
