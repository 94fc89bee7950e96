"""What the benchmarks are made of: peers, the same weights in our execution, timing, tables."""
