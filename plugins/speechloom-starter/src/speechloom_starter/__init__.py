"""speechloom-starter: a voice that works offline on a laptop, from weights shipped in the wheel."""
